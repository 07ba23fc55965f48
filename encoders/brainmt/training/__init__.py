"""Supervised training of BrainMT: who is used, what is learned, the loop, its checkpoints and its log."""

"""Evo 2 (StripedHyena 2) in plain PyTorch, for embeddings and scores, wherever PyTorch runs."""

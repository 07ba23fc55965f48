"""Predictions of a trained BrainMT beside simple models: scores, paired tests, table, figures, page."""

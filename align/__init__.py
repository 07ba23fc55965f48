"""Pairs subject vectors of two modalities, aligns them, and says how much to believe the result."""

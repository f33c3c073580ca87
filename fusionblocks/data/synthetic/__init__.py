"""Synthetic scenes: an aligned pair of a street or a yard, drawn from a seed, with its labels."""

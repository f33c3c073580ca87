"""CLIP as a guide: its towers, weights, prompts and pictures, and the classifier of degradations made of them."""

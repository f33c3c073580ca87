"""SAM as a guide: its weights and prompts, and the masks of a pair."""

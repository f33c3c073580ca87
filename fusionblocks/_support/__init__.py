"""What every layer may lean on; nothing here imports another part of the package."""

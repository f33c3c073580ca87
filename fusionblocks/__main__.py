"""``python -m fusionblocks`` is the command line."""

from __future__ import annotations

from fusionblocks.cli import main

if __name__ == "__main__":
    main()

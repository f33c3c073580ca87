"""``python -m fusionblocks.cli``."""

from fusionblocks.cli import main

main()

"""``python -m ztfzarr.cli``."""

from ztfzarr.cli import main

main()

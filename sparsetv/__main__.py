"""`python -m sparsetv`."""

from sparsetv.cli import main

main()

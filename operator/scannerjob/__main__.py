"""`python -m scannerjob` is the command line."""

from scannerjob.cli import main

main()

"""`python -m teale_io.cli` is `teale`."""

from teale_io.cli.main import main

main()

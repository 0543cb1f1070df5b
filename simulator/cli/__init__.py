"""The `teale-sim` command: runs worlds from their seeds, one or thousands, and shows what came of them.

Each command imports what it needs when it is called, so that `teale-sim run` does not wait for what only plots need.
"""

from simulator.cli.app import main

__all__ = ["main"]

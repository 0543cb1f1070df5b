"""Runs `teale` as a process of its own, with the fake node in place of the real one.

The first argument is what the fake node is told, "" for nothing; the rest is the command line.
"""

import os
import sys
from contextlib import suppress

from teale_io.cli.app import App
from teale_io.cli.main import teale

if __name__ == "__main__":
    if sys.stdin.isatty():
        with suppress(OSError):
            os.close(os.open(os.ttyname(0), os.O_RDWR))  # in a new session this becomes its controlling terminal
    manner, *words = sys.argv[1:]
    command = [sys.executable, "-m", "tests.io.cli.fake_node", *filter(None, [manner])]
    teale.main(words, obj=App(node_command=command))

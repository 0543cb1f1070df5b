"""How often Python looks for cycles of garbage while a world runs: seldom, since worlds are large and live.

By default it looks through the youngest objects whenever 700 more have been made than freed, and through all of them in
the end; with millions of live objects that is a fifth of the time and more. What worlds leave behind is freed without
it, but for connections that have ended, which refer to themselves.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

THRESHOLDS: Final = (500_000, 50, 100)
"""Objects made beyond those freed before the youngest are looked through, and how many such looks for the older."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Look for garbage seldom meanwhile, and as before afterwards."""
    before = gc.get_threshold()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)

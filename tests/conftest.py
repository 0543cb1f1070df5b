"""One profile for Hypothesis: the same examples on every run, and no verdict from a slow machine."""

from hypothesis import settings

settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")

"""The stage of the end-to-end tests, for those that need real processes here."""

from tests.e2e.conftest import stage

__all__ = ["stage"]

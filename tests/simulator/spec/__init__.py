"""Tests of the descriptions of worlds."""

"""Comparing two worlds."""

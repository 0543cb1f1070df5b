"""Tests of the io package."""

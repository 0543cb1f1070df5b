"""Tests of the `teale` command."""

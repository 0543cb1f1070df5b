"""Tests of the proto package."""

"""Tests of the fuzzer: what it draws, how it shrinks, and that it finds what was planted."""

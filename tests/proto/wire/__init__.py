"""Tests of frames, envelopes and messages."""

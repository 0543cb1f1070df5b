"""Tests of identities, handshakes and records."""

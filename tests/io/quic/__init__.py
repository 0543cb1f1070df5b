"""Tests of QUIC over real sockets on loopback."""

"""Tests of the local API, over real sockets."""

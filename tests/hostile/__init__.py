"""Relays, neighbours, peers and clients that mean harm."""

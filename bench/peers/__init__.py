"""Ends and relays of other systems, to compare with."""

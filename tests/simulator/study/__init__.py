"""The relay-scaling study."""

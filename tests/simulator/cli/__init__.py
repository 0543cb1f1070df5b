"""The command `teale-sim`."""

"""Random worlds with real programs, until one breaks a rule; and the same world in the simulator at once."""

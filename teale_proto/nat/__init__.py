"""NATs: what they do, how to observe it from behind one, and the server that helps observing."""

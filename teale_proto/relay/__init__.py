"""The relay as two cores: the server that forwards, and the client that registers with it."""

"""The relay's server and client, each alone and both together."""

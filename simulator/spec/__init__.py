"""A world described by values alone: what can be written in TOML, drawn by chance, shrunk, and kept in one file."""

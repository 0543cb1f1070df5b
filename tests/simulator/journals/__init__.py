"""The journals of real programs: read, replayed, told."""

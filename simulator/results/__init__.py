"""What is kept of a run: one directory with everything that is needed to look at it again, and to repeat it."""

"""The page of one run or two: what is in it, and how a browser shows it."""

"""One scenario, many runs: a grid of settings times some seeds, on as many processors as there are."""

"""A world of real programs on real kernels: the description that the simulator runs, in network namespaces."""

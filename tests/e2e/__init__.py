"""The whole programs: real processes, real sockets, real kernels, and the tiny model."""

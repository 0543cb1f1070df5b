"""A simulated internet for the cores of `teale_proto`: virtual time, one seed, nothing else."""

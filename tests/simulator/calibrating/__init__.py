"""The measuring of real programs, and what is made of the figures."""

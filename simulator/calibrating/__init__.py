"""Measuring what the real programs cost on this machine, for the simulator's models of them.

Relays and nodes run as processes of their own, and are spoken to over loopback as other nodes would: nothing of them
is imported. What a thing costs is the processor time that the process has used meanwhile, divided by how many there
were. Everything is done again in several rounds, one thing after the other in each, so that a machine whose speed
changes is unfair to none; figures are medians over the rounds, with their interquartile range.
"""

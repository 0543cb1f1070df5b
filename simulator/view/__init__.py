"""`teale-sim view`: one page, in one file, that shows one run or two in full.

Topology, timeline and every message of a request, from the trace of a results folder: of a simulated run, of a run in
the lab, or of both beside each other.
"""

"""The `teale` command: starts and stops the node, and shows what it knows.

Everything but the configuration and the identity comes from the running node's local API. Tables are for people;
`--json` gives programs one JSON document on stdout, also for errors.
"""

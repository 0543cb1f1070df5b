"""The Teale protocol as deterministic state machines that perform no I/O."""

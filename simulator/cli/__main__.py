"""`python -m simulator.cli` is `teale-sim`."""

from simulator.cli.app import main

if __name__ == "__main__":  # what a process of a sweep imports again must not run again
    main()

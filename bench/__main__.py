"""`python -m bench`: every benchmark, one after the other, and one table of what was aimed at and what came out."""

import argparse
from collections.abc import Callable
from typing import Final

from bench import api, lan_link, quic, relay, routing, simulator
from bench._harness import Claim, Run, add_options, console, execute, table_of

ALL: Final[dict[str, Callable[[Run], None]]] = {
    "routing": routing.measure,
    "simulator": simulator.measure,
    "api": api.measure,
    "lan_link": lan_link.measure,
    "quic": quic.measure,
    "relay": relay.measure,
}


def main() -> None:
    """Run what is named, or everything."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(ALL)}")
    add_options(parser)
    chosen = parser.parse_args()
    unknown = sorted(set(chosen.names) - ALL.keys())
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}")
    claims: list[Claim] = []
    for name in chosen.names or ALL:
        claims += execute(Run(name, quick=chosen.quick, rounds=chosen.rounds), ALL[name]).claims
    console.rule("all of it")
    console.print(table_of(claims))


if __name__ == "__main__":
    main()

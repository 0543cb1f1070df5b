"""Routers of the kernel's own, by the kind of NAT that they are: those of labs, in the networks of these tests."""

from typing import Final

from simulator.lab.routers import parameters_of, rules_of
from simulator.net.nat import NatKind
from simulator.rng import SplitMix64
from simulator.spec.access import NAT_KINDS
from tests.e2e.namespaces import Lan
from tests.e2e.test_port_mapping import run

KINDS: Final = {**NAT_KINDS, "udp-blocked": NatKind(udp_blocked=True)}


def become_router(lan: Lan, machine: str, kind: str, *, outside: str) -> None:
    """Make a machine, which has the interfaces `lan` and `wan`, a router of one kind with this address outside."""
    nat = KINDS[kind]
    settings = [f"net.{path.replace('/', '.')}={value}" for path, value in parameters_of(nat).items()]
    # What is unknown here, such as the filter of bridges where none is loaded, does no harm.
    run(lan, machine, "sysctl", "-eqw", *settings)
    run(lan, machine, "nft", "-f", "-", text=rules_of(nat, outside=outside, rng=SplitMix64(1)))

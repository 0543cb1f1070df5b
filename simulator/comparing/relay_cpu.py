"""Processor time a message at relays: by the profile of a machine, and as a lab found it.

The profile is put on what a relay was fed (`simulator.pacing`); the lab says what the program used, less its start. Of
a relay that had little to do, nothing is said.
"""

from pathlib import Path
from typing import Final

import msgspec

from simulator.comparing.cast import Cast
from simulator.comparing.measured import Figure, Measure
from simulator.costs import MachineProfile
from simulator.pacing import RelayPace, load_of
from simulator.results.model import DamagedResults
from simulator.trace import Entry
from teale_proto.contract import Instant, Value
from teale_proto.inputs import (
    ConnectionAccepted,
    ConnectionClosed,
    DatagramReceived,
    DataReceived,
    MessagesReceived,
    PingReceived,
    PongReceived,
    Woken,
)

LAB: Final = "lab.json"
"""What a lab keeps in its results of the programs that it ran."""

MESSAGES_MIN: Final = 1_000
"""A relay that took in fewer says nothing: what its program does besides would count for too much."""


class RelayCosts:
    """Puts a profile on what relays are fed."""

    KINDS: Final = (
        ConnectionAccepted,
        ConnectionClosed,
        DatagramReceived,
        DataReceived,
        MessagesReceived,
        PingReceived,
        PongReceived,
        Woken,
    )

    def __init__(self, cast: Cast, costs: MachineProfile) -> None:
        self._costs = costs
        self._fed: dict[str, list[tuple[Instant, Value]]] = {relay: [] for relay in sorted(cast.relays)}

    def observe(self, entry: Entry) -> None:
        """Take note of an input of a relay."""
        fed = self._fed.get(entry.host)
        if fed is not None:
            fed.append((entry.at, entry.value))

    def samples(self) -> dict[Figure, list[int]]:
        """Return what a message should have cost, in nanoseconds."""
        profile = self._costs.relay
        loads = {relay: load_of(RelayPace(profile), fed, idle_us=profile.idle_us) for relay, fed in self._fed.items()}
        return {
            Figure(Measure.RELAY_CPU, relay): [round(1000 * load.message_us)]
            for relay, load in loads.items()
            if load.messages >= MESSAGES_MIN
        }


class _Life(Value):
    cpu_us: int
    cpu_us_to_start: int


class _Program(Value):
    name: str
    lives: tuple[_Life, ...]
    messages_in: int


class _Lab(Value):
    programs: tuple[_Program, ...]


def found_in_lab(folder: Path, cast: Cast) -> dict[Figure, list[int]]:
    """Return what a message did cost the relays of a lab, in nanoseconds; nothing where it was no lab.

    Raises DamagedResults for a file that cannot be understood.
    """
    path = folder / LAB
    try:
        lab = msgspec.json.decode(path.read_bytes(), type=_Lab)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise DamagedResults(f"{path}: cannot be read: {error}") from error
    return {
        Figure(Measure.RELAY_CPU, each.name): [_message_ns(each)]
        for each in lab.programs
        if each.name in cast.relays and each.messages_in >= MESSAGES_MIN
    }


def _message_ns(program: _Program) -> int:
    used_us = sum(life.cpu_us - life.cpu_us_to_start for life in program.lives)
    return round(1000 * used_us / program.messages_in)

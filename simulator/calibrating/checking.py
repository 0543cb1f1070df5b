"""A profile held against measured figures that it was not made from: the parts, put together, must give the whole."""

from typing import Final, NamedTuple

from simulator.calibrating.figures import Figure
from simulator.calibrating.measuring import LONG_MS, alone
from simulator.calibrating.node_trials import RELAYED_MS
from simulator.calibrating.relay_trials import ALONE_BYTES
from simulator.calibrating.session import Measured
from simulator.costs import MachineProfile
from simulator.pacing import Cost, Costed, NodePace, RelayPace
from simulator.relay_cost import woken
from simulator.turns import Turn
from teale_proto.contract import Value
from teale_proto.inputs import DataReceived
from teale_proto.wire.binary import DATA, HEAD_BYTES

BEAT_BYTES: Final = 330
"""Of a sealed heartbeat."""


class Check(NamedTuple):
    """One figure, as the profile has it and as it was measured."""

    what: str
    predicted: float
    measured: Figure

    @property
    def deviation(self) -> float:
        """By which share of what was measured the prediction is too high."""
        return self.predicted / self.measured.value - 1 if self.measured.value else 0.0


def checks_of(measured: Measured, profile: MachineProfile) -> list[Check]:
    """Return the checks that can be made."""
    figures = measured.samples.figures()
    checks = []
    for pause_ms in (RELAYED_MS, LONG_MS):
        there_and_back = _round_trip_us(profile, pause_ms * 1000)
        name = alone("node relayed", pause_ms, "latency")
        what = f"through the relay to a node and back, after {pause_ms:g} ms, µs"
        checks.append(Check(what, there_and_back, figures[name]))
    name = alone("node relayed", LONG_MS, "cpu")
    relayed = _cost(NodePace(profile.node), _message(BEAT_BYTES), LONG_MS * 1000)
    checks.append(Check(f"node, message through a relay after {LONG_MS:g} ms, µs", relayed.cpu_us, figures[name]))
    name = "model, local API, first token, ms"
    if name in figures and profile.inference is not None:
        wake = woken(profile.node.wakes, LONG_MS * 1000)
        own_us = profile.node.asked_us + profile.node.piece_us + wake.cpu_us + wake.latency_us
        first_ms = profile.inference.begins_after * 1e3 + own_us / 1e3
        checks.append(Check("first token through the local API, known prompt, ms", first_ms, figures[name]))
    return checks


def _round_trip_us(profile: MachineProfile, idle_us: float) -> float:
    """Return how long a heartbeat through relay and node takes to be answered, after so long a pause."""
    relay, node = RelayPace(profile.relay), NodePace(profile.node)
    there = _cost(relay, _message(ALONE_BYTES), idle_us)
    answered = _cost(node, _message(BEAT_BYTES), idle_us)
    # When the answer comes back the relay has slept for as long as the node needed.
    back = _cost(relay, _message(BEAT_BYTES), answered.us)
    return there.us + answered.us + back.us


def _cost(pace: Costed, event: Value, idle_us: float) -> Cost:
    return pace.cost(Turn(event, round(idle_us)))


def _message(size: int) -> DataReceived:
    return DataReceived(1, DATA + bytes(HEAD_BYTES - 1 + size))

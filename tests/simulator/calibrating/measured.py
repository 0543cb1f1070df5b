"""Samples as a session gives them, made from known costs instead of programs."""

from simulator.calibrating.first_uses import NETWORK, QUIC, TLS
from simulator.calibrating.measuring import PAUSES_MS, alone
from simulator.calibrating.model_trials import Ask
from simulator.calibrating.session import Measured

ROUNDS = 3
PAUSES_CPU = dict(zip(PAUSES_MS, (40.0, 100.0, 140.0, 300.0, 340.0, 360.0), strict=True))

PLAIN = {
    "relay bulk of 300 B, µs": 4.0,
    "relay bulk of 16384 B, µs": 24.0,
    "relay ping, µs": 150.0,
    "relay STUN, µs": 180.0,
    "relay session, µs": 120.0,
    "relay registration, µs": 900.0,
    "relay discover, µs": 170.0,
    "relay discover, an entry, µs": 2.0,
    "relay start, µs": 350_000.0,
    "relay idle, µs/s": 100.0,
    "node bulk, µs": 35.0,
    "node large, µs": 260.0,
    "node small, µs": 200.0,
    "node handshake, µs": 1900.0,
    "node session, µs": 1800.0,
    "node asked, µs": 1500.0,
    "node told a piece, µs": 420.0,
    "node start, µs": 600_000.0,
    "node idle, µs/s": 900.0,
    "upstream served a piece, µs": 400.0,
    "upstream served, first token, ms": 5.0,
    "upstream served, ms a token": 5.0,
    "upstream served, µs": 3000.0,
}
WITH_MODEL = {
    "node served a piece, µs": 250.0,
    "node served, µs": 1500.0,
    "node served, ms a token": 0.5,
    "model, local API, first token, ms": 5.0,
    "model, over the LAN, first token, ms": 4.0,
}
WITH_PATHS = {
    "node direct path, µs": 12_000.0,
    NETWORK: 3000.0,
    TLS: 30_000.0,
    QUIC: 40_000.0,
    "direct told a piece, µs": 720.0,
    "direct served a piece, µs": 750.0,
}

FIXED, TOKEN = 0.004, 0.0004
"""Seconds to the first token, and more for each token that has to be read."""


def session(*, model: bool = True, paths: bool = True) -> Measured:
    """Return what a session would have measured."""
    measured = Measured()
    add = measured.samples.add
    for _ in range(ROUNDS):
        for name, value in {**PLAIN, **(WITH_MODEL if model else {}), **(WITH_PATHS if paths else {})}.items():
            add(name, value)
        for pause_ms, cpu in PAUSES_CPU.items():
            for name in ("relay message", "node message"):
                add(alone(name, pause_ms, "cpu"), cpu)
                add(alone(name, pause_ms, "idle"), pause_ms * 1000 + 30)
                add(alone(name, pause_ms, "latency"), 2 * cpu)
        for pause_ms in (20.0, PAUSES_MS[-1]):
            for what, value in (("cpu", PAUSES_CPU[pause_ms] + 50), ("idle", pause_ms * 1000), ("latency", 1500.0)):
                add(alone("node relayed", pause_ms, what), value)
    if model:
        for unread in (0.0, 40.0, 90.0) * 3:
            first = FIXED + TOKEN * unread
            measured.asked.append(Ask(unread, tuple(first + 0.0005 * number for number in range(9))))
    measured.rounds = ROUNDS
    return measured

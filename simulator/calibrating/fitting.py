"""From what was measured to a profile: what is charged twice is taken out once, so that the parts add up to the whole.

A message that comes alone is a message in bulk and a waking; a handshake is its messages and the rest. The figures of a
profile are such parts, and `simulator.pacing` puts them together again. So a figure here is what remains of a measured
one when everything that the pace charges beside it has been taken away.
"""

import statistics
from itertools import pairwise
from typing import Final

from simulator.calibrating.figures import Line, Samples, line_through, quantiles_of
from simulator.calibrating.first_uses import NETWORK, QUIC, TLS
from simulator.calibrating.measuring import LONG_MS, PAUSES_MS, SHORT_MS, alone, scatter
from simulator.calibrating.model_trials import FEW_TOKENS, Ask
from simulator.calibrating.node_trials import LARGE_MODELS, RELAYED_MS
from simulator.calibrating.relay_trials import ALONE_BYTES, LARGE_BYTES, SESSION_MESSAGES
from simulator.calibrating.session import Measured
from simulator.costs import InferenceProfile, MachineProfile, NodeProfile
from simulator.lab.plan import TINY
from simulator.relay_cost import OURS, RelayProfile, Wake, Work, woken
from teale_proto.wire.binary import HEAD_BYTES
from teale_proto.wire.cluster import CLUSTER_CODEC, Heartbeat

SOURCE: Final = "teale-sim calibrate; notice, connection_kib, kernel_kib and base_mib: those of simulator.relay_cost"
CONTROL_BYTES: Final = 250
"""Of `relayOpen` and its like."""
SEAL_BYTES: Final = 21
"""What encryption and framing add to a message between nodes."""
PATH_MESSAGES: Final = 3
"""Between dialling and having a path, each of which wakes somebody; they are charged as messages."""
GREETING_INPUTS: Final = 4
"""What a conversation that begins and ends costs in messages: two of the handshake, the greeting, the end."""
KNOWN_TOKENS: Final = 8
"""A prompt with fewer tokens that are new to the model counts as known."""
JITTER_MAX: Final = 0.9
LEAST_SECONDS: Final = 1e-6
"""Of reading a token, where that takes no time that could be measured."""


def fitted(measured: Measured, *, machine: str) -> MachineProfile:
    """Return the profile of this machine; `machine` says what was measured on, when and how."""
    samples = measured.samples
    relay, node = relay_profile(samples), node_profile(samples)
    inference = inference_profile(samples, node, measured.asked) if measured.asked else None
    return MachineProfile(machine=machine, relay=relay, node=node, hardware=measured.hardware, inference=inference)


def relay_profile(samples: Samples) -> RelayProfile:
    """Return what relays cost; memory, which is not measured, stays that of `OURS`."""
    median = samples.median
    sizes = {float(size + HEAD_BYTES): median(f"relay bulk of {size} B, µs") for size in (ALONE_BYTES, LARGE_BYTES)}
    line = line_through(sizes)
    forward = Work(max(0.0, line.at_zero), max(0.0, line.slope * 1000))
    wakes = _wakes(samples, "relay message", forward.us(ALONE_BYTES + HEAD_BYTES))
    awake = wakes[0].cpu_us
    short = woken(wakes, SHORT_MS * 1000).cpu_us

    # Of the messages of a session only the first finds the relay asleep for a while.
    in_session = (short + (SESSION_MESSAGES - 1) * awake) / SESSION_MESSAGES

    def busy(name: str) -> float:
        """Return what something costs on a busy relay, that was measured a short pause apart."""
        return max(0.0, median(name) - short + awake)

    return RelayProfile(
        name="teale-relay",
        source=SOURCE,
        forward=forward,
        wake_us=awake,
        discover=Work(busy("relay discover, µs"), max(0.0, median("relay discover, an entry, µs") * 1000)),
        notice=OURS.notice,
        registration_us=busy("relay registration, µs"),
        ping_us=busy("relay ping, µs"),
        connection_kib=OURS.connection_kib,
        kernel_kib=OURS.kernel_kib,
        base_mib=OURS.base_mib,
        wakes=wakes,
        control_us=max(0.0, median("relay session, µs") - in_session - forward.us(CONTROL_BYTES)),
        stun_us=busy("relay STUN, µs"),
        start_us=median("relay start, µs"),
        idle_us=median("relay idle, µs/s"),
        spread=_spread(samples, "relay message"),
        drift=_drift(samples, "relay message"),
    )


def node_profile(samples: Samples) -> NodeProfile:
    """Return what nodes cost."""
    median = samples.median
    small, large = (_heartbeat_bytes(models) for models in ((), LARGE_MODELS))
    each_ns = max(0.0, (median("node large, µs") - median("node small, µs")) / (large - small) * 1000)
    fixed = max(0.0, median("node bulk, µs") - each_ns * small / 1000)
    message = Work(fixed, each_ns)
    wakes = _wakes(samples, "node message", message.us(small))
    awake, short, long = (woken(wakes, idle_us).cpu_us for idle_us in (0.0, SHORT_MS * 1000, LONG_MS * 1000))
    far, near = (median(alone(name, RELAYED_MS, "cpu")) for name in ("node relayed", "node message"))
    relayed = max(0.0, far - near)
    # Of several inputs close together, the first finds the node asleep for a while, the others do not.
    greeting = GREETING_INPUTS * fixed + short + (GREETING_INPUTS - 1) * awake
    handshake = max(0.0, median("node handshake, µs") - greeting)
    direct = median("node direct path, µs") if "node direct path, µs" in samples else 0.0
    path_us = max(0.0, direct - handshake)
    quic_message = _more(samples, "direct told a piece, µs", "node told a piece, µs")
    soon = woken(wakes, SHORT_MS * 1000)
    turn = soon.cpu_us + soon.latency_us + message.us(small)
    served = median("node served, µs") if "node served, µs" in samples else 0.0
    upstream_piece = _piece_us(samples, wakes, "upstream")
    asleep = woken(wakes, LONG_MS * 1000)
    # The request and the first piece are inputs of the node's as well, and are charged as such.
    first = median("upstream served, first token, ms") * 1000
    own = message.us(small) + asleep.cpu_us + asleep.latency_us + upstream_piece + woken(wakes, first).cpu_us
    return NodeProfile(
        message=message,
        wakes=wakes,
        relayed_us=relayed,
        network_us=_beyond(samples, NETWORK, turn + median("relay STUN, µs")),
        tls_first_us=_beyond(samples, TLS, handshake),
        handshake_us=handshake,
        session_us=max(0.0, median("node session, µs") - greeting - GREETING_INPUTS * relayed),
        quic_us=path_us,
        quic_first_us=_beyond(samples, QUIC, handshake + path_us + PATH_MESSAGES * (turn + quic_message)),
        quic_message_us=quic_message,
        quic_piece_us=_more(samples, "direct served a piece, µs", "upstream served a piece, µs"),
        asked_us=max(0.0, median("node asked, µs") - message.us(small) - short),
        served_us=max(0.0, served - message.us(small) - long) if served else 0.0,
        piece_us=_piece_us(samples, wakes, "node"),
        upstream_us=max(0.0, first - own),
        upstream_served_us=max(0.0, median("upstream served, µs") - message.us(small) - long),
        upstream_piece_us=upstream_piece,
        start_us=median("node start, µs"),
        idle_us=median("node idle, µs/s"),
        spread=_spread(samples, "node message"),
        drift=_drift(samples, "node message"),
    )


def inference_profile(samples: Samples, node: NodeProfile, asked: list[Ask]) -> InferenceProfile:
    """Return how fast the model is, the node's own part apart."""
    # A prompt that is known is the usual case; what others cost more is put on what is new in them.
    known = statistics.median(ask.first for ask in asked if ask.unread < KNOWN_TOKENS)
    each = statistics.median((ask.first - known) / ask.unread for ask in asked if ask.unread >= KNOWN_TOKENS)
    line = Line(known, max(LEAST_SECONDS, each))
    low, _, high = statistics.quantiles([ask.first for ask in asked if ask.unread < KNOWN_TOKENS], n=4)
    # The request wakes the node, and the first token does so again.
    request, token = woken(node.wakes, LONG_MS * 1000), woken(node.wakes, line.at_zero * 1e6)
    own_us = node.message.us(ALONE_BYTES) + node.piece_us
    own_us += request.cpu_us + request.latency_us + token.cpu_us + token.latency_us
    whole = [ask for ask in asked if len(ask.pieces) > FEW_TOKENS]
    gaps = [later - earlier for ask in whole for earlier, later in pairwise(ask.pieces)]
    lengths = [len(ask.pieces) for ask in asked]
    return InferenceProfile(
        model=TINY,
        begins_after=max(0.0, line.at_zero - own_us / 1e6),
        # Drawn evenly, half of all lie within half the spread.
        begins_spread=max(0.0, high - low),
        prefill_tokens_per_second=1 / line.slope,
        tokens_per_second=1000 / samples.median("node served, ms a token"),
        jitter=_jitter(gaps),
        remembers_prompt=True,
        tokens_min=min(lengths),
        tokens_max=max(lengths),
    )


def _wakes(samples: Samples, name: str, message_us: float) -> tuple[Wake, ...]:
    """Return what waking costs after each pause, where a message in bulk costs so much.

    Of the latency, the program's work is taken away, and once what it takes to wake us, who have slept for a moment
    only; that is half of what is left where the program has slept as shortly.
    """
    found: list[Wake] = []
    ours = 0.0
    for pause_ms in PAUSES_MS:
        cpu, idle, latency = (samples.median(alone(name, pause_ms, what)) for what in ("cpu", "idle", "latency"))
        beyond = latency - cpu
        if pause_ms == 0:
            ours = beyond / 2
        if not found or idle > found[-1].idle_us:
            found.append(Wake(max(0.0, idle), max(0.0, cpu - message_us), max(0.0, beyond - ours)))
    return tuple(found)


def _beyond(samples: Samples, name: str, known_us: float) -> float:
    """Return how much longer something took than is charged for it anyhow, where it was measured."""
    return max(0.0, samples.median(name) - known_us) if name in samples else 0.0


def _spread(samples: Samples, name: str) -> tuple[float, ...]:
    """Return how single things of a round deviate from the middle one."""
    return quantiles_of(samples.of(scatter(name))) if scatter(name) in samples else ()


def _drift(samples: Samples, name: str) -> tuple[float, ...]:
    """Return how rounds deviate from each other."""
    rounds = [samples.of(alone(name, pause_ms, "latency")) for pause_ms in PAUSES_MS if pause_ms]
    return quantiles_of([each / statistics.median(taken) for taken in rounds for each in taken])


def _more(samples: Samples, name: str, than: str) -> float:
    """Return what one thing costs more than another, where it was measured."""
    return max(0.0, samples.median(name) - samples.median(than)) if name in samples else 0.0


def _piece_us(samples: Samples, wakes: tuple[Wake, ...], name: str) -> float:
    """Return what sending on a piece costs, its waking apart."""
    if f"{name} served a piece, µs" not in samples:
        return 0.0
    idle_us = samples.median(f"{name} served, ms a token") * 1000
    return max(0.0, samples.median(f"{name} served a piece, µs") - woken(wakes, idle_us).cpu_us)


def _jitter(gaps: list[float]) -> float:
    """Return by which share of itself the time of a token deviates, most of the time."""
    if len(gaps) < 2:
        return 0.0
    low, *_, high = statistics.quantiles(gaps, n=10)
    middle = statistics.median(gaps)
    return min(JITTER_MAX, (high - low) / 2 / middle) if middle > 0 else JITTER_MAX


def _heartbeat_bytes(models: tuple[str, ...]) -> int:
    return len(CLUSTER_CODEC.encode(Heartbeat("0" * 64, 0.0, loaded_models=models))) + SEAL_BYTES

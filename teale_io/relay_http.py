"""The pages of a relay: is it up, who is there, how busy is it.

`/metrics` has two forms: the text that Prometheus reads, and for whoever asks for JSON the object that the deployed
relay gives. Neither names a node.
"""

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from importlib.metadata import version
from typing import Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from teale_io.clock import now
from teale_io.relay_access import TOKEN_WANTED, Access
from teale_io.websocket_server import Page, Visit
from teale_proto.contract import SECOND, Value
from teale_proto.relay.server import Metrics, RelayServer
from teale_proto.wire.fields import wire_name

JSON: Final = "application/json"
_TEXTS: Final = frozenset({"text/plain", "text/*", "application/openmetrics-text"})


class _Health(Value):
    ok: bool
    peers: int


class _Peer(Value, rename=wire_name):
    node_id: str
    display_name: str
    loaded_models: tuple[str, ...]
    is_available: bool
    proved: bool


class _Metrics(Value, rename=wire_name):
    """The names are those of the deployed relay."""

    peers: int
    messages_per_minute: int
    relay_sessions_active: int
    uptime_seconds: int
    total_messages: int


def pages(relay: RelayServer, access: Access, collectors: Iterable[Collector] = ()) -> Callable[[Visit], Page | None]:
    """Return what answers a GET: `/health` for everybody, the others for whoever `access` shows them to.

    What more `collectors` there are is shown to Prometheus too.
    """
    registry = CollectorRegistry()
    for collector in (_Counters(relay), *collectors):
        registry.register(collector)
    ProcessCollector(registry=registry)

    def metrics(visit: Visit) -> Page:
        if wants_json(visit.headers.get_all("Accept")):
            return Page(msgspec.json.encode(_deployed(relay.metrics(now()))))
        return Page(generate_latest(registry), CONTENT_TYPE_LATEST)

    def page(visit: Visit) -> Page | None:
        if visit.path == "/health":
            return _health(relay)
        if visit.path not in ("/peers", "/metrics"):
            return None
        if not access.may_look(visit):
            return TOKEN_WANTED
        return _peers(relay) if visit.path == "/peers" else metrics(visit)

    return page


def _health(relay: RelayServer) -> Page:
    # A load balancer sends nobody new to a relay that is about to end.
    is_open = not relay.metrics(now()).is_draining
    status = HTTPStatus.OK if is_open else HTTPStatus.SERVICE_UNAVAILABLE
    return Page(msgspec.json.encode(_Health(ok=is_open, peers=relay.health().peers)), status=status)


def _peers(relay: RelayServer) -> Page:
    listed = [
        _Peer(
            node_id=listing.node_id,
            display_name=listing.display_name,
            loaded_models=listing.loaded_models,
            is_available=listing.is_available,
            proved=listing.proved,
        )
        for listing in relay.listings()
    ]
    return Page(msgspec.json.encode(listed))


def _deployed(counted: Metrics) -> _Metrics:
    return _Metrics(
        peers=counted.peers,
        messages_per_minute=counted.messages_last_minute,
        relay_sessions_active=counted.sessions,
        uptime_seconds=counted.uptime // SECOND,
        total_messages=counted.messages,
    )


class _Counters(Collector):
    """The relay's counters as Prometheus reads them, taken at the moment of the question."""

    def __init__(self, relay: RelayServer) -> None:
        self._relay = relay

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        counted = self._relay.metrics(now())
        yield InfoMetricFamily("teale_relay", "The program.", {"version": version("teale")})
        gauges: Iterable[tuple[str, str, float]] = (
            ("nodes", "Registered nodes.", counted.peers),
            ("strangers", "Connections that have not registered.", counted.strangers),
            ("sessions", "Sessions between nodes, open or opening.", counted.sessions),
            ("uptime_seconds", "Seconds since the relay started.", counted.uptime / SECOND),
            ("draining", "1 while the relay takes nothing new.", counted.is_draining),
        )
        for name, text, value in gauges:
            yield GaugeMetricFamily(f"teale_relay_{name}", text, value)
        counters = (
            ("messages", "Messages taken in.", counted.messages),
            ("message_bytes", "Bytes of the messages taken in.", counted.size_bytes),
            ("connections", "Connections accepted.", counted.connections),
            ("registrations", "Registrations of nodes.", counted.registrations),
            ("sessions_opened", "Sessions that were taken up.", counted.sessions_opened),
        )
        for name, text, total in counters:
            yield CounterMetricFamily(f"teale_relay_{name}", text, total)
        yield _labelled(
            "too_fast", "Messages refused for their rate, by whose limit it was.", "scope", counted.excesses
        )
        yield _labelled("complaints", "Errors sent to clients, by their code.", "code", counted.errors)


def _labelled(name: str, text: str, label: str, counts: Iterable[tuple[str, int]]) -> Metric:
    family = CounterMetricFamily(f"teale_relay_{name}", text, labels=[label])
    for value, count in counts:
        family.add_metric([value], count)
    return family


def wants_json(accept: Iterable[str]) -> bool:
    """Return whether `Accept` headers name JSON, and no text before it (RFC 9110, section 12.5.1)."""
    json, text = 0.0, 0.0
    for offered in ",".join(accept).split(","):
        kind, *parameters = (part.strip().lower() for part in offered.split(";"))
        weight = next((_weight(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
        if kind == JSON:
            json = max(json, weight)
        elif kind in _TEXTS:
            text = max(text, weight)
    return json > 0 and json >= text


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0

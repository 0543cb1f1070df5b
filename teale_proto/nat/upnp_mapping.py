"""A port that the driver keeps open by UPnP, where the gateway speaks nothing that we speak ourselves.

UPnP is HTTP and XML, which a library does; when to ask, to renew and to give back is decided here. A gateway that
opens no port is asked again when `want` is called again. A mapping is renewed from half of its lifetime on, each
attempt after half of what remains.
"""

from collections.abc import Iterator
from typing import Final

from teale_proto.contract import NEVER, SECOND, Duration, Instant, Sink
from teale_proto.effects import MapPort, UnmapPort
from teale_proto.inputs import Address, PortMapFailed, PortMapped
from teale_proto.nat.port_mapping_values import LIFETIME_SECONDS_MAX
from teale_proto.rng import Rng

LIFETIME: Final[Duration] = 3600 * SECOND
"""What is asked for; so long a port stays open for a node that was killed. What never ends is renewed as often."""

LIFETIME_MIN: Final[Duration] = 120 * SECOND
"""What a shorter lifetime is taken for, so that no gateway can keep us busy."""

RENEWAL_GAP: Final[Duration] = 30 * SECOND
"""With less time left than twice this, a mapping is not renewed any more."""

ANSWER_MAX: Final[Duration] = 60 * SECOND
"""How long the driver may take: it asks around, reads a description, and tries several ports."""

Effect = MapPort | UnmapPort


class UpnpMapping:
    """One port at one gateway; `requests` are numbers that nobody else uses."""

    __slots__ = (
        "_ends_at",
        "_gateway",
        "_is_asking",
        "_local",
        "_next_at",
        "_request",
        "_requests",
        "_rng",
        "external",
    )

    def __init__(self, gateway: str, local: Address, requests: Iterator[int], rng: Rng) -> None:
        self._gateway = gateway
        self._local = local
        self._requests = requests
        self._rng = rng
        self._forget()

    def _forget(self) -> None:
        self._request: int | None = None
        self._is_asking = False
        self._next_at: Instant = NEVER
        """When to renew, or while an answer is awaited, to wait for it no longer."""
        self._ends_at: Instant = NEVER
        self.external: Address | None = None
        """Where the port is open; None where it is not."""

    @property
    def deadline(self) -> Instant:
        """When to call `fired`, or NEVER."""
        return min(self._next_at, self._ends_at)

    def want(self, now: Instant, out: Sink[Effect]) -> None:
        """Have the port opened, unless it is open or about to be."""
        if self._request is None:
            self._request = next(self._requests)
            self._ask(now, out)

    def answered(self, event: PortMapped | PortMapFailed, now: Instant, out: Sink[Effect]) -> None:
        """Take the driver's answer; one to what was not asked, or asked no more, changes nothing."""
        if event.request != self._request or not self._is_asking:
            return
        self._is_asking = False
        if isinstance(event, PortMapped) and event.external.port > 0:
            lifetime = min(max(event.lifetime or LIFETIME, LIFETIME_MIN), LIFETIME_SECONDS_MAX * SECOND)
            self.external, self._ends_at = event.external, now + lifetime
            self._plan(now)
        else:
            self._failed(now, out)

    def fired(self, now: Instant, out: Sink[Effect]) -> None:
        """Do what is due."""
        if self._ends_at <= now:
            self.release(out)
        elif self._next_at <= now and self._is_asking:
            self._is_asking = False
            self._failed(now, out)
        elif self._next_at <= now:
            self._ask(now, out)

    def release(self, out: Sink[Effect]) -> None:
        """Close the port, or ask for it no longer."""
        if self._request is not None:
            out.append(UnmapPort(self._request))
        self._forget()

    def _ask(self, now: Instant, out: Sink[Effect]) -> None:
        assert self._request is not None
        self._is_asking, self._next_at = True, now + ANSWER_MAX
        out.append(MapPort(self._request, self._gateway, self._local, LIFETIME))

    def _failed(self, now: Instant, out: Sink[Effect]) -> None:
        if self.external is None:
            self.release(out)
        else:
            self._plan(now)

    def _plan(self, now: Instant) -> None:
        wait = (self._ends_at - now) // 2
        self._next_at = now + wait - self._rng.randrange(wait // 4 + 1) if wait >= RENEWAL_GAP else NEVER

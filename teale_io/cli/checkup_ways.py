"""What `teale doctor --netcheck` says about the ways there are: to relays, past captive portals, and how long NATs
remember one that nobody uses.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio

from teale_io.cli.checkup import Finding, milliseconds, ok, warn
from teale_io.config import Config
from teale_io.nat_lifetime import SPAN, Span, find_lifetime, minutes_at_most
from teale_io.netcheck import Family, Netcheck, PortalPage, RelayTarget
from teale_io.node_app import relay_dialer
from teale_io.relay_check import Portal, PortalOutcome, RelayLatency, health_url
from teale_io.stun_servers import relay_servers
from teale_proto.contract import SECOND, Duration
from teale_proto.nat.kinds import Filtering
from teale_proto.nat.lifetime import Bounds, LifetimeOutcome, ReportLifetime, ReportSilence

SHORT_LIFETIME: Final[Duration] = 30 * SECOND
"""Paths that are idle say something every 25 s or so; a mapping that lives for less is lost in between."""

Tell = Callable[[str], object]
"""Says to people how far something is that takes long."""


def targets_of(config: Config) -> tuple[RelayTarget, ...]:
    """Return the relays to be measured; raises TealeError where `wan_relay_ca` cannot be used."""
    servers = relay_servers(config.wan_relay_url) if config.wan_enabled else ()
    return (RelayTarget(config.wan_relay_url, relay_dialer(config), servers[0]),) if servers else ()


def page_of(config: Config, named: str | None) -> PortalPage | None:
    """Return by which page to look for portals: the one that was named, or our relay's own, if it has one."""
    if named is not None:
        return PortalPage(named, is_health=False)
    url = health_url(config.wan_relay_url) if config.wan_enabled else None
    return None if url is None else PortalPage(url, is_health=True)


def findings(result: Netcheck) -> list[Finding]:
    """Judge what was found out about relays, portals and lifetimes."""
    found = [_of_portal(result.portal)] if result.portal is not None else []
    found += [_of_relay(each) for each in result.relays]
    found += [_of_lifetime(family.version, family.lifetime) for family in result.families if family.lifetime]
    return found


def _of_portal(portal: Portal) -> Finding:
    check = "captive portal"
    if portal.outcome is PortalOutcome.CLEAR:
        return ok(check, f"none: {portal.url} answers for itself")
    if portal.outcome is PortalOutcome.NO_ANSWER:
        return warn(
            check,
            f"not known: {portal.url} does not answer ({portal.detail})",
            "See whether this machine is online, or name another page that is known to be empty: --portal-url URL",
        )
    return warn(
        check,
        f"somebody else answers for {portal.url}: {portal.detail}",
        "Open any http:// page in a browser and accept the terms of this network, then try again.",
    )


def _of_relay(latency: RelayLatency) -> Finding:
    check = "relay latency"
    if latency.websocket_seconds is None:
        return warn(
            check,
            f"{latency.url} cannot be connected to: {latency.reason}",
            "See what the check called relay says about it.",
        )
    connect = "" if latency.connect_seconds is None else f"TCP in {milliseconds(latency.connect_seconds)}, "
    stun = "no answer to STUN" if latency.stun_seconds is None else f"STUN in {milliseconds(latency.stun_seconds)}"
    return ok(check, f"{latency.url}: {connect}WebSocket in {milliseconds(latency.websocket_seconds)}, {stun}")


# Lifetimes.


def search_lifetimes(result: Netcheck, tell: Tell, *, span: Span = SPAN) -> Netcheck:
    """Return the result with the lifetimes of mappings, searched for in all IP versions at once: takes minutes."""
    families = [each for each in result.families if _is_worth_it(each)]
    if not families:
        tell("There is no mapping or filter here whose lifetime could be searched for.")
        return result
    tell(
        f"Finding out for how long an unused port stays open: up to {minutes_at_most(span)} minutes, most of them "
        "spent in silence. Ctrl-C ends it."
    )
    found: dict[int, ReportLifetime | None] = {}

    async def search() -> None:
        async with trio.open_nursery() as nursery:
            for family in families:
                nursery.start_soon(search_one, family)

    async def search_one(family: Family) -> None:
        assert family.server is not None, "only who has an answer is worth it"

        def progress(report: ReportSilence) -> None:
            tell(f"IPv{family.version}: {_progress(report)}")

        found[family.version] = await find_lifetime(family.local, family.server, tell=progress, span=span)

    trio.run(search)
    return msgspec.structs.replace(
        result,
        families=tuple(msgspec.structs.replace(each, lifetime=found.get(each.version)) for each in result.families),
    )


def _is_worth_it(family: Family) -> bool:
    behaviour = family.behaviour
    if family.server is None or behaviour is None or behaviour.udp_blocked:
        return False
    # What neither translates nor filters has nothing to forget.
    return behaviour.translated is not False or behaviour.filtering is not Filtering.ENDPOINT_INDEPENDENT


def _progress(report: ReportSilence) -> str:
    survived = "still open" if report.survived else "closed"
    left = -(-report.left_at_most // (60 * SECOND))
    more = f"{left} more minutes at most" if left > 1 else "a minute more at most" if left else "that is exact enough"
    return f"{survived} after {_seconds(report.silence)} of silence; {more}"


def _of_lifetime(version: int, report: ReportLifetime) -> Finding:
    check = f"lifetime, IPv{version}"
    if report.outcome is LifetimeOutcome.REFUSED:
        return warn(
            check, "not known: the server answers to no other port", "Ask one that does: every teale-relay. --stun HOST"
        )
    if report.outcome is LifetimeOutcome.UNREACHABLE:
        return warn(
            check,
            "not known: what one socket asks for does not arrive at another",
            "The NAT seems to use several outside addresses; ask a server nearer to you, if there is one.",
        )
    if report.outcome is LifetimeOutcome.NO_ANSWER:
        known = f"; {_bounds(report.known)}" if report.silences else ""
        return warn(check, f"not known, as the server fell silent{known}", "Try again on a line that stays up.")
    found = f"an unused port stays open for {_bounds(report.known)}"
    if report.known.at_most is not None and report.known.at_least < SHORT_LIFETIME:
        return warn(
            check,
            found,
            "Direct paths that are idle may be lost. See whether the router has a longer time-out for UDP; RFC 4787 "
            "wants two minutes at least.",
        )
    return ok(check, found)


def _bounds(known: Bounds) -> str:
    if known.at_most is None:
        return f"{_seconds(known.at_least)} at least"
    if not known.at_least:
        return f"{_seconds(known.at_most)} at most"
    return f"{_seconds(known.at_least)} to {_seconds(known.at_most)}"


def _seconds(duration: Duration) -> str:
    return f"{duration / SECOND:.0f} s"


# For programs.


def relays_as_builtins(result: Netcheck) -> list[dict[str, Any]]:
    """Return the latencies of relays in milliseconds."""
    return [
        {
            "url": each.url,
            "connect_ms": _ms(each.connect_seconds),
            "websocket_ms": _ms(each.websocket_seconds),
            "stun_ms": _ms(each.stun_seconds),
            "reason": each.reason or None,
        }
        for each in result.relays
    ]


def portal_as_builtins(portal: Portal | None) -> dict[str, Any] | None:
    """Return what came of looking for a captive portal."""
    if portal is None:
        return None
    return {"url": portal.url, "outcome": portal.outcome.value, "detail": portal.detail or None}


def lifetime_as_builtins(report: ReportLifetime | None) -> dict[str, Any] | None:
    """Return a lifetime, in seconds."""
    return None if report is None else {"outcome": report.outcome.value, **bounds_as_builtins(report)}


def bounds_as_builtins(report: ReportLifetime) -> dict[str, float]:
    """Return what is known of a lifetime, in seconds; what is not known is left out."""
    known = {"at_least_seconds": report.known.at_least, "at_most_seconds": report.known.at_most}
    return {name: round(value / SECOND, 1) for name, value in known.items() if value}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)

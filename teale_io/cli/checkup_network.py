"""What `teale doctor --netcheck` says about the way to other nodes: UDP, IPv4 and IPv6, NATs, the gateway.

Nothing here fails: a node that can do nothing but speak to its relay is served by it, only slower.
"""

from pathlib import Path
from typing import Any, Final

import tomlkit

from teale_io import netcheck, upnp
from teale_io.cli import checkup_ways
from teale_io.cli.checkup import Finding, milliseconds, ok, warn
from teale_io.config import Config
from teale_io.gateway_check import PortOutcome
from teale_io.netcheck import Family, Netcheck, PortalPage, RelayTarget
from teale_io.stun_servers import Server, parse_server, relay_servers
from teale_proto.inputs import Address
from teale_proto.nat.kinds import Behaviour, Filtering, Hairpinning, Mapping
from teale_proto.nat.port_mapping_values import ReportPortMapped, ReportPortRefused
from teale_proto.nat.strategy import PlanKind, Side, plan

_MAPPING: Final = {
    Mapping.ENDPOINT_INDEPENDENT: "the same port for everybody",
    Mapping.ADDRESS_DEPENDENT: "another port for every address",
    Mapping.ADDRESS_AND_PORT_DEPENDENT: "another port for every address and port",
}
_FILTERING: Final = {
    Filtering.ENDPOINT_INDEPENDENT: "anybody may send to an open port",
    Filtering.ADDRESS_DEPENDENT: "only addresses that were sent to may answer",
    Filtering.ADDRESS_AND_PORT_DEPENDENT: "only addresses and ports that were sent to may answer",
}
_HAIRPINNING: Final = {
    Hairpinning.EXTERNAL_SOURCE: "nodes behind the same NAT reach each other through it",
    Hairpinning.INTERNAL_SOURCE: "nodes behind the same NAT reach each other through it, but see inside addresses",
    Hairpinning.NONE: "nodes behind the same NAT do not reach each other through it",
}
_PEERS: Final = {
    "without NAT": (Mapping.ENDPOINT_INDEPENDENT, Filtering.ENDPOINT_INDEPENDENT),
    "behind usual home routers": (Mapping.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT),
    "behind hard NATs": (Mapping.ADDRESS_AND_PORT_DEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT),
}
_WAYS: Final = {
    PlanKind.DIRECT: "direct",
    PlanKind.PUNCH: "direct after hole punching",
    PlanKind.PREDICTION: "perhaps direct, by foretelling ports",
    PlanKind.BIRTHDAY: "direct only by trying many ports, else relayed",
    PlanKind.RELAY: "relayed",
}


def servers_of(config: Config, named: tuple[Server, ...]) -> tuple[Server, ...]:
    """Return whom to ask: whom the node asks, where there is a relay, and those that were named; nobody else."""
    if not config.wan_enabled:
        return named
    known = (*map(parse_server, config.wan_stun), *relay_servers(config.wan_relay_url))
    return tuple(dict.fromkeys((*known, *named)))


def look(
    config: Config,
    named: tuple[Server, ...],
    *,
    map_port: bool,
    relays: tuple[RelayTarget, ...] = (),
    page: PortalPage | None = None,
) -> Netcheck:
    """Try everything out; takes some seconds where nobody answers."""
    return netcheck.run(servers_of(config, named), map_port=map_port, relays=relays, page=page)


def findings(result: Netcheck, *, map_port: bool, asked: bool) -> list[Finding]:
    """Judge a result; `asked` says whether there was any server to ask."""
    found: list[Finding] = []
    if not asked:
        found.append(
            warn(
                "udp",
                "no STUN server is known",
                "Name one: --stun HOST:PORT. Every teale-relay is one; with wan_enabled yours is asked.",
            )
        )
    found += [
        warn("udp", f"{host} has no address", "Look whether the name is right, and whether this machine is online.")
        for host in result.unresolved
    ]
    for family in result.families:
        found += _of_family(family)
    if asked and result.families and result.of(6) is None:
        found.append(ok("udp, IPv6", "not tried: none of the servers has an IPv6 address"))
    if map_port:
        found.append(_of_gateway(result))
    return found + checkup_ways.findings(result)


def _of_family(family: Family) -> list[Finding]:
    name = f"IPv{family.version}"
    behaviour = family.behaviour
    if not family.local or behaviour is None:
        return [ok(f"udp, {name}", f"this machine has no way to the servers over {name}")]
    if family.server is None or behaviour.mapped is None:
        asked = ", ".join(map(_endpoint, family.asked))
        return [
            warn(
                f"udp, {name}",
                f"no answer from {asked}",
                "Either UDP is blocked here, or these servers do not answer: ask another one with --stun HOST:PORT. "
                "Where UDP is blocked all goes through the relay, which works.",
            )
        ]
    seconds = "" if family.round_trip_seconds is None else f" in {milliseconds(family.round_trip_seconds)}"
    seen = f"sees this machine as {_endpoint(behaviour.mapped)}"
    how = ", translated by a NAT" if behaviour.translated else ", its own address"
    found = [ok(f"udp, {name}", f"{_endpoint(family.server)} answers{seconds} and {seen}{how}")]
    if behaviour.translated:
        found.append(_mapping(name, behaviour))
    found.append(_filtering(name, behaviour))
    if behaviour.translated:
        hairpin = "not known" if behaviour.hairpinning is None else _HAIRPINNING[behaviour.hairpinning]
        found.append(ok(f"hairpin, {name}", hairpin))
    found.append(ok(f"paths, {name}", _paths(behaviour)))
    return found


def _mapping(name: str, behaviour: Behaviour) -> Finding:
    check = f"mapping, {name}"
    if behaviour.mapping is None and behaviour.mapping_varies is None:
        return warn(
            check,
            "not known: nobody at a second address answered",
            "Ask two servers: --stun HOST:PORT, given twice; or one that has two addresses.",
        )
    if behaviour.mapping is Mapping.ENDPOINT_INDEPENDENT:
        return ok(check, _words(behaviour.mapping) + f": {_MAPPING[behaviour.mapping]}")
    kind = behaviour.mapping
    found = "dependent on whom one sends to" if kind is None else f"{_words(kind)}: {_MAPPING[kind]}"
    return warn(
        check,
        found,
        "Hole punching fails with many peers. A router that opens ports (PCP, NAT-PMP, UPnP) or IPv6 mends that; "
        "see whether yours can, with --port-mapping.",
    )


def _filtering(name: str, behaviour: Behaviour) -> Finding:
    check = f"filtering, {name}"
    if behaviour.filtering is None:
        return ok(check, "not known: that needs a STUN server with two addresses (teale-relay --stun-alternate)")
    return ok(check, f"{_words(behaviour.filtering)}: {_FILTERING[behaviour.filtering]}")


def _paths(behaviour: Behaviour) -> str:
    ours = Side(behaviour)
    ways = []
    for peers, (mapping, filtering) in _PEERS.items():
        theirs = Behaviour(udp_blocked=False, translated=peers != "without NAT", mapping=mapping, filtering=filtering)
        ways.append(f"to peers {peers}: {_WAYS[plan(ours, Side(theirs)).kind]}")
    return "; ".join(ways)


def _of_gateway(result: Netcheck) -> Finding:
    check = "port mapping"
    outcome = result.port_mapping
    if not result.gateway:
        return warn(check, "no gateway found", "Only the IPv4 gateway of the default route is asked.")
    if isinstance(outcome, ReportPortMapped):
        found = f"{result.gateway} opens ports by {outcome.protocol.value}, at {_endpoint(outcome.external)}"
        if outcome.routable:
            return ok(check, found)
        return warn(
            check, f"{found}, which is not an address of the internet", "Another NAT follows, perhaps your provider's."
        )
    if isinstance(outcome, ReportPortRefused):
        return warn(check, f"{result.gateway} refuses: {outcome.reason.value}", "See whether the router allows it.")
    if result.upnp_tried:
        return ok(check, f"{result.gateway} speaks neither PCP nor NAT-PMP nor UPnP")
    missing = "" if upnp.is_installed() else "; for UPnP install the extra upnp of teale"
    return ok(check, f"{result.gateway} speaks neither PCP nor NAT-PMP{missing}")


def _endpoint(address: Address) -> str:
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


# What is kept.


def as_builtins(result: Netcheck) -> dict[str, Any]:
    """Return the whole result for programs."""
    document: dict[str, Any] = {}
    for family in result.families:
        behaviour = family.behaviour
        document[f"ipv{family.version}"] = {
            "local": family.local or None,
            "asked": [_endpoint(each) for each in family.asked],
            "server": family.server and _endpoint(family.server),
            "mapped": _endpoint(behaviour.mapped) if behaviour and behaviour.mapped else None,
            "round_trip_ms": family.round_trip_seconds and round(family.round_trip_seconds * 1000, 3),
            "mapping_varies": behaviour.mapping_varies if behaviour else None,
            **{key: _properties(behaviour).get(key) for key in _PROPERTIES},
            "lifetime": checkup_ways.lifetime_as_builtins(family.lifetime),
        }
    document["unresolved"] = list(result.unresolved)
    document["gateway"] = result.gateway or None
    outcome = result.port_mapping
    document["port_mapping"] = outcome and {
        "outcome": _outcome(outcome),
        "external": _endpoint(outcome.external) if isinstance(outcome, ReportPortMapped) else None,
    }
    document["relays"] = checkup_ways.relays_as_builtins(result)
    document["captive_portal"] = checkup_ways.portal_as_builtins(result.portal)
    return document


def save(result: Netcheck, file: Path) -> Finding:
    """Keep the profile of the NATs: how they behave, and no address, so that it can be shown around."""
    document = tomlkit.document()
    document.add(
        tomlkit.comment("How the NATs of one machine behave, in RFC 4787's terms; what is not here is unknown.")
    )
    known = False
    for family in result.families:
        properties = _properties(family.behaviour)
        if family.lifetime is not None:
            bounds = checkup_ways.bounds_as_builtins(family.lifetime)
            properties |= {f"lifetime_{name}": value for name, value in bounds.items()}
        if properties:
            document[f"ipv{family.version}"] = properties
            known = True
    if not known:
        return warn("profile", "nothing is known that could be kept", "Ask a server that answers: --stun HOST:PORT")
    if result.port_mapping is not None:
        document["gateway"] = {"port_mapping": _outcome(result.port_mapping)}
    try:
        file.write_text(tomlkit.dumps(document), encoding="utf-8")
    except OSError as error:
        return warn("profile", f"{file}: {(error.strerror or str(error)).lower()}", "Name another file: --save FILE")
    return ok("profile", f"kept in {file}")


_PROPERTIES: Final = ("udp_blocked", "translated", "mapping", "filtering", "hairpinning")


def _properties(behaviour: Behaviour | None) -> dict[str, Any]:
    """Return what is known of a behaviour, in words."""
    if behaviour is None:
        return {}
    values = {name: getattr(behaviour, name) for name in _PROPERTIES}
    return {
        name: value if isinstance(value, bool) else _words(value) for name, value in values.items() if value is not None
    }


def _words(kind: Mapping | Filtering | Hairpinning) -> str:
    return kind.name.lower().replace("_", "-")


def _outcome(outcome: PortOutcome) -> str:
    """Return by what ports are opened, or why they are not."""
    if isinstance(outcome, ReportPortMapped):
        return outcome.protocol.value
    return outcome.reason.value if isinstance(outcome, ReportPortRefused) else "none"

"""Whether a registration may be believed: the host that was dialled is ours, and the key's owner is there.

A relay that somebody else runs can hand our challenge to a node that dials *it*. The node signs the host
that it dialled, so we accept only proofs over a host that is us: the address that the connection came in on,
`localhost` on a loopback address, or a name that the operator gave.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from teale_proto.errors import PeerError
from teale_proto.inputs import Address, NodeId
from teale_proto.secure.suite import NOISE, Suite
from teale_proto.wire.relay import Register, legacy_registration, registration_proof, relay_host_name

CHALLENGE_BYTES: Final = 32

_PRINTABLE: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.:_")


def answers_to(host: str, local: Address, names: Iterable[str]) -> bool:
    """Return whether a relay that was reached at `local` goes by the name `host`."""
    name = relay_host_name(host)
    here = _ip_address(local.host)
    if name in map(relay_host_name, names):
        return True
    if here is None:
        return False
    return _ip_address(name) == here or (name == "localhost" and here.is_loopback)


def refusal_of(host: str) -> str:
    """Return what to tell people when `answers_to` says no; nothing that could upset a terminal is quoted."""
    name = relay_host_name(host)
    shown = f'"{name}"' if 0 < len(name) <= 253 and _PRINTABLE.issuperset(name) else "the name that was dialled"
    return f"this relay does not go by {shown}: its operator must add that name to the relay's names"


def proves_key(node: NodeId, host: str, challenge: bytes, signature: str, *, suite: Suite = NOISE) -> bool:
    """Return whether hexadecimal `signature` answers `challenge` for a node that dialled `host`."""
    return suite.verify(node, registration_proof(node, host, challenge), bytes.fromhex(signature))


def is_signed(register: Register, *, suite: Suite = NOISE) -> bool:
    """Return whether the bare signature of the deployed programs is right; it may still be a replay."""
    return suite.verify(register.node_id, legacy_registration(register.node_id), bytes.fromhex(register.signature))


def names_own_static_key(register: Register, *, suite: Suite = NOISE) -> bool:
    """Return whether the X25519 key, where one is given, is the one that follows from the node id."""
    if register.wg_public_key is None:
        return True
    try:
        return bytes.fromhex(register.wg_public_key) == suite.static_key_of(register.node_id)
    except PeerError:
        return False


def _ip_address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    # A socket that listens on both families shows IPv4 clients as ::ffff:a.b.c.d.
    return getattr(address, "ipv4_mapped", None) or address

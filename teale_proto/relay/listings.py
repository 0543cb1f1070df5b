"""What to believe of what a relay says: of its peers each node once, never ourselves, and no more than we want.

A relay that does not check what nodes say of themselves passes on their nonsense; one such neighbour must
not hide all others, so a list that is malformed as a whole is read entry by entry.
"""

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw

from teale_proto.errors import PeerError
from teale_proto.inputs import NodeId
from teale_proto.wire.codec import Codec, Unknown
from teale_proto.wire.fields import Message
from teale_proto.wire.relay import PeerListing


class DiscoverResponse(Message):
    """The message of that name, with its entries unread."""

    peers: Annotated[tuple[Raw, ...], Meta(max_length=1000)]


_UNREAD: Final[Codec[DiscoverResponse]] = Codec((DiscoverResponse,), documented_names={DiscoverResponse: "peers"})
_LISTING: Final = msgspec.json.Decoder(PeerListing)


def salvaged(data: bytes) -> list[PeerListing] | None:
    """Return the well-formed entries of a malformed list of peers; None when `data` is no such list."""
    try:
        message, _ = _UNREAD.decode(data)
    except PeerError:
        return None
    if isinstance(message, Unknown):
        return None
    found = []
    for entry in message.peers:
        try:
            found.append(_LISTING.decode(entry))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
    return found


def believable(peers: Iterable[PeerListing], own: NodeId, listings_max: int) -> tuple[PeerListing, ...]:
    """Return the first `listings_max` entries that name different nodes, none of them `own`, each by its own key."""
    found: dict[NodeId, PeerListing] = {}
    for peer in peers:
        if peer.node_id != own and peer.public_key == peer.node_id:
            found.setdefault(peer.node_id, peer)
            if len(found) == listings_max:
                break
    return tuple(found.values())


def printable(text: str) -> str:
    """Return a stranger's text so that it can be shown: one line, and not too long."""
    return "".join(character if character.isprintable() else " " for character in text[:256])

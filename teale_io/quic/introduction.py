"""How the two ends of a connection come to know each other: what each of them says, and what is believed of it.

The server is known by its certificate, or by a session that only it can resume; the client by the first stream
that it opens. See `credentials` for why that is enough.
"""

from typing import Final

from teale_io.quic.credentials import PROOF_BYTES, client_proof, node_of_certificate, node_of_proof
from teale_io.quic.errors import WrongNode
from teale_proto.errors import PeerError
from teale_proto.inputs import NodeId
from teale_proto.secure.identity import Identity

PROOF_STREAM: Final = 2
"""The first stream in one direction that a client opens (RFC 9000, section 2.1)."""


class Introduction:
    """One end's side of it; `expected` is the node that was dialled, None at the end that was."""

    __slots__ = ("_heard", "_identity", "expected", "has_spoken")

    def __init__(self, identity: Identity, expected: NodeId | None) -> None:
        self._identity: Final = identity
        self.expected: Final = expected
        self.has_spoken = False
        """Whether we have said who we are."""
        self._heard = b""

    def speak(self, first_id: bytes) -> bytes:
        """Return what a client says of itself, on a connection with that first id."""
        assert self.expected is not None
        self.has_spoken = True
        return client_proof(self._identity, server=self.expected, first_id=first_id)

    def check_server(self, certificate_der: bytes, *, resumed: bool) -> NodeId:
        """Return the node that answers, which is the expected one; raises WrongNode otherwise."""
        assert self.expected is not None
        if resumed and not certificate_der:
            return self.expected  # tickets are kept of nodes only that have proved themselves
        try:
            found = node_of_certificate(certificate_der)
        except PeerError as error:
            raise WrongNode(f"whoever answered is no node: {error.reason}") from None
        if found != self.expected:
            raise WrongNode("another node than the one that was dialled answered")
        return found

    def hear_client(self, data: bytes, *, ends: bool, first_id: bytes) -> NodeId | None:
        """Take the next bytes of what a client says of itself; return who it is once that is all there.

        Raises WrongNode where it is not true.
        """
        self._heard += data
        if len(self._heard) < PROOF_BYTES and not ends:
            return None
        try:
            return node_of_proof(self._heard, server=self._identity.node_id, first_id=first_id)
        except PeerError as error:
            raise WrongNode(f"the client is no node: {error.reason}") from None

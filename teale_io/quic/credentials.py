"""How the two ends of a QUIC connection know each other: by node id, and by nothing else.

TLS has a key of its own, drawn when the process starts; the node's key vouches for it and is never handed to a TLS
library. The server's certificate carries the node id and its signature over the certificate's key, so TLS's own
check of that key proves the node. No chain is built and no trust store is read.

TLS libraries for QUIC do not ask clients for certificates. A client therefore proves itself on the connection's
first stream, by a signature over both node ids and the connection's first id. It says so only to a server that
has proved itself before, encrypted, and it is of no use with any other server: its id is part of what was signed.
"""

import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

from teale_proto.errors import PeerError
from teale_proto.inputs import NodeId
from teale_proto.secure.identity import SIGNATURE_BYTES, Identity, Secret, verify

NODE_PROOF: Final = ObjectIdentifier("2.25.177830862034526113497220613902482091363")
"""The extension that holds node id and signature; an arc that needs no registration (ITU-T X.667)."""

KEY_BYTES: Final = 32
CERTIFICATE_BYTES_MAX: Final = 4096
PROOF_BYTES: Final = 1 + KEY_BYTES + SIGNATURE_BYTES

_SERVER: Final = b"teale quic server 1\0"
_CLIENT: Final = b"teale quic client 1\0"
_PROOF_VERSION: Final = b"\x01"
_ALWAYS: Final = (datetime.datetime(2020, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59))


class Credentials(Secret):
    """A TLS key and the certificate by which a node vouches for it."""

    __slots__ = ("certificate", "certificate_pem", "key", "key_pem", "node")

    def __init__(self, identity: Identity) -> None:
        self.node: Final = identity.node_id
        self.key: Final = ec.generate_private_key(ec.SECP256R1())
        spoken_for = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        proof = bytes.fromhex(self.node) + identity.sign(_SERVER + spoken_for)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "teale")])
        self.certificate: Final = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_ALWAYS[0])
            .not_valid_after(_ALWAYS[1])
            .add_extension(x509.UnrecognizedExtension(NODE_PROOF, proof), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        self.certificate_pem: Final = self.certificate.public_bytes(Encoding.PEM)
        self.key_pem: Final = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def node_of_certificate(certificate_der: bytes) -> NodeId:
    """Return the node that vouches for a certificate; raises PeerError where none does.

    TLS has checked that the other side holds the certificate's key.
    """
    if len(certificate_der) > CERTIFICATE_BYTES_MAX:
        raise PeerError("its certificate is longer than any of ours")
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        extension = certificate.extensions.get_extension_for_oid(NODE_PROOF).value
        spoken_for = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise PeerError("its certificate names no node") from None
    assert isinstance(extension, x509.UnrecognizedExtension)
    return _proven(extension.value, _SERVER + spoken_for)


def client_proof(identity: Identity, *, server: NodeId, first_id: bytes) -> bytes:
    """Return what a client says of itself on a connection to `server` whose first connection id is `first_id`."""
    signature = identity.sign(_client_claim(identity.node_id, server, first_id))
    return _PROOF_VERSION + bytes.fromhex(identity.node_id) + signature


def node_of_proof(proof: bytes, *, server: NodeId, first_id: bytes) -> NodeId:
    """Return the client that made a proof for this connection; raises PeerError where none did."""
    if proof[:1] != _PROOF_VERSION:
        raise PeerError("its proof is of a version that is not known here")
    claimed = NodeId(proof[1 : 1 + KEY_BYTES].hex())
    return _proven(proof[1:], _client_claim(claimed, server, first_id))


def _client_claim(client: NodeId, server: NodeId, first_id: bytes) -> bytes:
    return _CLIENT + bytes.fromhex(client) + bytes.fromhex(server) + first_id


def _proven(proof: bytes, claim: bytes) -> NodeId:
    node = NodeId(proof[:KEY_BYTES].hex())
    if not verify(node, claim, proof[KEY_BYTES:]):
        raise PeerError("it does not hold the key of the node that it names")
    return node

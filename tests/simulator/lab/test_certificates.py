"""The authority of a lab: who trusts it believes the relays that it vouches for, and nobody else."""

import socket
import ssl
import threading
from pathlib import Path

import pytest

from simulator.lab.certificates import Authority

HERE = "127.0.0.1"


def shake_hands(certificate: Path, trusted: Path, host: str = HERE) -> None:
    """Have a client that trusts one authority connect to a server with a certificate; raises SSLError."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    client = ssl.create_default_context(cafile=str(trusted))
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def serve() -> None:
            try:
                server.wrap_socket(theirs, server_side=True).close()
            except (OSError, ssl.SSLError):
                theirs.close()

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            client.wrap_socket(ours, server_hostname=host).close()
        finally:
            ours.close()
            serving.join()


def test_a_relay_that_the_authority_vouches_for_is_believed(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.certify("relay-0", (HERE, "192.0.2.1"))
    assert certificate.stat().st_mode & 0o077 == 0
    shake_hands(certificate, authority.ca_file)


def test_nobody_else_is_and_not_under_another_address(tmp_path: Path) -> None:
    ours, other = (tmp_path / name for name in ("ours", "other"))
    for folder in (ours, other):
        folder.mkdir()
    authority = Authority(ours)
    foreign = Authority(other).certify("relay-0", (HERE,))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(foreign, authority.ca_file)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(authority.certify("relay-0", ("192.0.2.1",)), authority.ca_file)

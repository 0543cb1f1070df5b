"""The QUIC protocol itself, from a library without I/O: `qh3` where it is installed, otherwise `aioquic`.

`qh3` is a maintained fork of `aioquic` with its interface and its hot parts in Rust. What the two do differently,
and what neither tells publicly, is confined to this module; everything else sees a `Core` and names of events.
"""

import importlib
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from cryptography.hazmat.primitives.serialization import Encoding

from teale_io.quic.credentials import Credentials
from teale_io.quic.packets import CID_BYTES, VERSION_1

PREFERRED: Final = ("qh3", "aioquic")
ALPN: Final = "teale/1"

CONNECTION_WINDOW: Final = 16 << 20
STREAM_WINDOW: Final = 8 << 20
"""How much may be on its way to us: 8 MiB are 100 MB/s over 80 ms."""

PeerAddress: TypeAlias = tuple[str, int]


class Core(Protocol):
    """What both libraries call QuicConnection: one connection, driven by datagrams and the time in seconds."""

    host_cid: bytes

    @property
    def original_destination_connection_id(self) -> bytes:
        """The first id of the connection, which the client drew."""

    def connect(self, addr: PeerAddress, now: float) -> None:
        """Begin the handshake."""

    def receive_datagram(self, data: bytes, addr: PeerAddress, now: float) -> None:
        """Take a datagram."""

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        """Return what must be sent."""

    def get_timer(self) -> float | None:
        """Return when `handle_timer` must be called."""

    def handle_timer(self, now: float) -> None:
        """Do what is due."""

    def next_event(self) -> Any:
        """Return the next thing that happened, or None."""

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        """Queue bytes of a stream."""

    def reset_stream(self, stream_id: int, error_code: int) -> None:
        """Give a stream up."""

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        """Ask the other side to send no more on a stream."""

    def send_ping(self, uid: int) -> None:
        """Ask for a sign of life."""

    def change_connection_id(self) -> None:
        """Use another of the ids that the other side has given us."""

    def close(self, error_code: int, frame_type: int | None = None, reason_phrase: str = "") -> None:
        """End the connection."""


class Path(NamedTuple):
    """What a connection knows of its path."""

    rtt_seconds: float
    window_bytes: int
    in_flight_bytes: int


class Stack:
    """One of the two libraries."""

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self._connection: Final[Any] = importlib.import_module(f"{name}.quic.connection")
        self._configuration: Final[Any] = importlib.import_module(f"{name}.quic.configuration")
        if name == "qh3" and not hasattr(self._connection.QuicConnection, "receive_many_datagrams"):
            raise ImportError("this qh3 is older than what is used here")
        if name == "aioquic":
            self._lost: Final[Any] = importlib.import_module("aioquic.quic.packet_builder").QuicDeliveryState.LOST
        self._encode_retry: Final[Any] = importlib.import_module(f"{name}.quic.packet").encode_quic_retry
        # What a peer does wrong is ours to report, and must not let it fill the log.
        logging.getLogger("quic").setLevel(logging.CRITICAL)
        self._is_warm = False

    def warm_up(self, as_client: Any) -> None:
        """Do before it matters what the library does for the first connection of a process: 50 ms of work in qh3."""
        if not self._is_warm:
            self._is_warm = True
            # Never sent: nobody takes the datagrams out.
            self.client(as_client, None, lambda _: None).connect(("192.0.2.1", 9), 0.0)

    def configuration(
        self,
        *,
        is_client: bool,
        credentials: Credentials,
        idle_seconds: float,
        datagram_bytes: int,
    ) -> Any:
        """Return what the connections of an endpoint have in common, as client or as server."""
        made = self._configuration.QuicConfiguration(
            alpn_protocols=[ALPN],
            connection_id_length=CID_BYTES,
            idle_timeout=idle_seconds,
            is_client=is_client,
            max_data=CONNECTION_WINDOW,
            max_stream_data=STREAM_WINDOW,
            max_datagram_size=datagram_bytes,
            supported_versions=[VERSION_1],
            # The key in the certificate is checked by us: see `credentials`.
            verify_mode=ssl.CERT_NONE,
        )
        if not is_client:
            self._certify(made, credentials)
        return made

    def _certify(self, configuration: Any, credentials: Credentials) -> None:
        if self.name == "qh3":
            configuration.load_cert_chain(credentials.certificate_pem, credentials.key_pem)
        else:
            configuration.certificate = credentials.certificate
            configuration.private_key = credentials.key

    def client(self, configuration: Any, ticket: Any, on_ticket: Callable[[Any], None]) -> Core:
        """Return a connection to be opened, with a ticket of an earlier one or None."""
        core: Core = self._connection.QuicConnection(
            configuration=replace(configuration, session_ticket=ticket), session_ticket_handler=on_ticket
        )
        return core

    def server(
        self,
        configuration: Any,
        *,
        first_id: bytes,
        retry_id: bytes | None,
        take_ticket: Callable[[bytes], Any],
        on_ticket: Callable[[Any], None],
    ) -> Core:
        """Return a connection that somebody opens to us, after a Retry with `retry_id` or without one."""
        core: Core = self._connection.QuicConnection(
            configuration=configuration,
            original_destination_connection_id=first_id,
            retry_source_connection_id=retry_id,
            session_ticket_fetcher=take_ticket,
            session_ticket_handler=on_ticket,
        )
        return core

    def retry(self, *, source: bytes, destination: bytes, first: bytes, token: bytes) -> bytes:
        """Return a Retry packet (RFC 9000, section 17.2.5)."""
        packet: bytes = self._encode_retry(
            version=VERSION_1,
            source_cid=source,
            destination_cid=destination,
            original_destination_cid=first,
            retry_token=token,
        )
        return packet

    # What is told publicly by neither or one of them only.

    def receive(self, core: Any, datagrams: Sequence[bytes], address: PeerAddress, now: float) -> None:
        """Have a connection take datagrams that came together from one address."""
        if self.name == "qh3" and len(datagrams) > 1:
            core.receive_many_datagrams(datagrams, address, now)
            return
        retries = 0 if self.name == "qh3" else core._retry_count  # noqa: SLF001
        for datagram in datagrams:
            core.receive_datagram(datagram, address, now)
        if self.name != "qh3" and core._retry_count != retries:  # noqa: SLF001
            self._repeat_early(core)

    def to_send(self, core: Any, now: float) -> list[tuple[bytes, Any]]:
        """Return the datagrams that a connection has to send, and where to."""
        if self.name != "qh3" or core._core is None:  # noqa: SLF001
            found: list[tuple[bytes, Any]] = core.datagrams_to_send(now)
            return found
        # The facade reads every packet that it has made again, for a log that nobody keeps: half of the time.
        poll = core._core.poll_transmit  # noqa: SLF001
        found = []
        try:
            while (made := poll(now)) is not None:
                found.append((made[0], made[1]))
        except RuntimeError:
            # After early data, where the server's first packets come one by one or out of order, it wants to send with
            # keys that it has not got yet. What it could not send is sent again when it has.
            if core._handshake_complete or not core._early_data_attempted:  # noqa: SLF001
                raise
        return found

    def _repeat_early(self, core: Any) -> None:
        """Have aioquic send early data again after a Retry, where it forgets everything that it has sent."""
        core._loss._cc.bytes_in_flight = 0  # noqa: SLF001
        for stream in core._streams.values():  # noqa: SLF001
            sender = stream.sender
            ends = sender._buffer_fin is not None  # noqa: SLF001
            sender.on_data_delivery(self._lost, sender._buffer_start, sender._buffer_stop, ends)  # noqa: SLF001

    def certificate_der(self, core: Any) -> bytes:
        """Return the other side's certificate; empty where it showed none, as when a session is resumed."""
        if self.name == "qh3":
            certificate = core.get_peercert()
            return certificate.public_bytes() if certificate is not None else b""
        certificate = core.tls._peer_certificate  # noqa: SLF001  (there is no other way to it)
        return certificate.public_bytes(Encoding.DER) if certificate is not None else b""

    def unsent_bytes(self, core: Any, stream: int) -> int:
        """Return how much of a stream waits to be sent for the first time, or again."""
        if self.name == "qh3":
            waiting: int = core.get_send_buffer_size(stream)
            return waiting
        found = core._streams.get(stream)  # noqa: SLF001  (aioquic tells nobody what it holds)
        return sum(len(each) for each in found.sender._pending) if found is not None else 0  # noqa: SLF001

    def is_delivered(self, core: Any) -> bool:
        """Return whether everything that was given to a connection has reached the other side."""
        if self.name == "qh3":
            native = core._core  # noqa: SLF001  (the facade tells nothing of what is in flight)
            return native is None or (core.get_send_buffer_size() == 0 and native.bytes_in_flight == 0)
        senders = [stream.sender for stream in core._streams.values()]  # noqa: SLF001
        # What is in flight of the handshake may be counted for ever; of the data, the last space has it all.
        in_flight = core._loss.spaces[-1].ack_eliciting_in_flight  # noqa: SLF001
        return not in_flight and all(each.buffer_is_empty for each in senders)

    def closing(self, core: Any) -> Any:
        """Return why a connection is ending, as soon as that is known; None while it is not."""
        return core._close_event  # noqa: SLF001  (both report it only after a while, in which nothing can be said)

    def may_send(self, core: Any) -> bool:
        """Return whether more may be sent than what cannot wait.

        What qh3 2.1 has in flight keeps it from repeating a lost end of the handshake, without which the other side
        can read none of it; so there it is to be little until the other side has confirmed the handshake.
        """
        return self.name != "qh3" or bool(core._handshake_confirmed)  # noqa: SLF001

    def is_authentic(self, core: Any) -> bool:
        """Return whether anything that came in was a packet of this connection."""
        if self.name == "qh3":
            return core._core is not None and core._core.received_authenticated_packet  # noqa: SLF001
        return bool(core._state.value)  # noqa: SLF001  (FIRSTFLIGHT is zero)

    def unordered_bytes(self, core: Any) -> int:
        """Return how much a connection holds that came out of order, where it does not limit that itself."""
        if self.name == "qh3":
            return 0  # limited by the stream's window
        return sum(len(stream.receiver._buffer) for stream in core._streams.values())  # noqa: SLF001

    def path(self, core: Any) -> Path:
        """Return what a connection knows of its path."""
        if self.name == "qh3":
            native = core._core  # noqa: SLF001
            if native is None:
                return Path(0.0, 0, 0)
            return Path(native.smoothed_rtt or 0.0, native.congestion_window, native.bytes_in_flight)
        loss = core._loss  # noqa: SLF001
        return Path(loss._rtt_smoothed, loss.congestion_window, loss.bytes_in_flight)  # noqa: SLF001


def best_stack() -> Stack:
    """Return the faster library of those that are installed; raises ImportError where there is none."""
    for name in PREFERRED:
        try:
            return Stack(name)
        except ImportError:
            continue
    raise ImportError("QUIC needs aioquic or qh3")

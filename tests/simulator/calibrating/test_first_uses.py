"""What a process does for the first time, as its journal has it."""

from pathlib import Path

from simulator.calibrating.first_uses import NETWORK, QUIC, TLS, first_uses
from simulator.journals import read
from simulator.trace import Entry
from teale_proto.effects import Connect, WebSocketUrl
from teale_proto.inputs import ConnectionOpened
from tests.simulator.journals.lives import ASKING, LIVES, recorded


def test_a_connection_over_tls_takes_from_when_it_is_wanted_until_it_is_there(tmp_path: Path) -> None:
    path = recorded(ASKING, tmp_path / "journal")
    entries: list[Entry] = []
    read(path).replayed(entries.append)
    asked = next(entry for entry in entries if isinstance(entry.value, Connect))
    assert isinstance(asked.value, Connect)
    assert isinstance(asked.value.target, WebSocketUrl)
    opened = next(entry for entry in entries if isinstance(entry.value, ConnectionOpened))
    found = first_uses(path)
    is_tls = asked.value.target.url.startswith("wss:")
    assert found.get(TLS) == (opened.at - asked.at if is_tls else None)
    assert QUIC not in found


def test_what_was_not_done_is_not_told(tmp_path: Path) -> None:
    assert first_uses(recorded(LIVES["node on a LAN, asking"], tmp_path / "journal")).keys() <= {NETWORK}

from simulator.results.model import HostInfo, Place
from simulator.results.traces import Line
from simulator.view import lines
from simulator.view.ends import EndsSurvey, RelayMessage, relay_message

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
HOSTS = (
    HostInfo("relay", "relay", (Place("internet", "192.0.2.1"),)),
    HostInfo("ann", "node", (Place("home", "10.0.0.2"),), "EIM+APDF"),
    HostInfo("bob", "node", (Place("home", "10.0.0.3"),), "EIM+APDF"),
    HostInfo("carl", "node", (Place("office", "10.0.0.3"),), "EIM+APDF"),
)


def dials(who: str, connection: int, **target: object) -> Line:
    return Line(0, who, "Connect", lines.Opened(connection, target))


def accepts(host: str, connection: int, remote: str) -> Line:
    return Line(1, host, "ConnectionAccepted", lines.Accepted(connection, lines.Remote(remote)))


def says(host: str, kind: str, connection: int, data: bytes) -> Line:
    return Line(2, host, kind, lines.Data(connection, data))


def registers(connection: int, node: str) -> Line:
    return says("relay", "DataReceived", connection, b'{"type":"register","payload":{"nodeID":"%s"}}' % node.encode())


def surveyed(*seen: Line) -> EndsSurvey:
    survey = EndsSurvey(HOSTS)
    for line in seen:
        survey.observe(line)
    return survey


def url(node: str) -> str:
    return f"wss://192.0.2.1:443/ws?node={node}"


def test_a_private_address_is_that_of_a_neighbour() -> None:
    ends = surveyed(dials("ann", 1, host="10.0.0.3", port=1), accepts("bob", 2, "10.0.0.2")).ends()
    assert ends.dialled == ("bob",)
    assert ends.accepted == (0,)
    assert ends.is_relayed == (False,)


def test_who_registers_with_a_relay_is_who_dialled_also_when_another_dialled_first() -> None:
    ends = surveyed(
        dials("ann", 1, url=url(A)),
        dials("carl", 1, url=url(C)),
        accepts("relay", 2, "60.0.0.2"),
        accepts("relay", 4, "60.0.0.1"),
        registers(2, C),
        registers(4, A),
    ).ends()
    assert ends.nodes == {A: "ann", C: "carl"}
    assert ends.dialled == ("relay", "relay")
    assert ends.accepted == (1, 0)


def test_a_direct_target_is_found_by_its_node_even_when_that_is_known_only_later() -> None:
    ends = surveyed(
        dials("ann", 3, node=C, local={}, remote={}),
        dials("carl", 1, url=url(C)),
        accepts("carl", 2, "60.0.0.1"),
    ).ends()
    assert ends.dialled == ("carl", "relay")
    assert ends.accepted == (0,)


def test_what_nobody_dialled_belongs_to_nobody() -> None:
    failed = Line(1, "ann", "ConnectFailed", lines.Ended(1))
    ends = surveyed(dials("ann", 1, host="10.0.0.3", port=1), failed, accepts("bob", 2, "10.0.0.2")).ends()
    assert ends.accepted == (-1,)


def test_a_session_is_of_those_who_speak_in_it() -> None:
    data = b"\x01" + bytes(16) + b"sealed"
    ends = surveyed(
        dials("ann", 1, url=url(A)),
        dials("carl", 1, url=url(C)),
        says("ann", "SendData", 1, data),
        says("carl", "DataReceived", 1, data),
        says("ann", "SendText", 1, b'{"type":"relayOpen","payload":{"sessionID":"s2"}}'),
    ).ends()
    assert ends.sessions == {"00" * 16: frozenset({"ann", "carl"}), "s2": frozenset({"ann"})}


def test_messages_to_a_relay_are_told_by_their_heads() -> None:
    assert relay_message(b"\x01" + bytes(16)) == RelayMessage("relayData", "00" * 16)
    assert relay_message(b"\x01") == RelayMessage("malformed", "")
    assert relay_message(b'{"type":"discover","payload":{}}') == RelayMessage("discover", "")
    assert relay_message(b"\xff<not json>") == RelayMessage("message", "")

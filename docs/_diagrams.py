"""Diagrams as SVG, drawn with little more than rectangles and lines; no script, and the page's own colours.

State diagrams take their arrows from the state tables of the code; only where each state stands is chosen here.
"""

import tomllib
from collections.abc import Mapping, Sequence
from enum import Enum
from html import escape
from math import hypot
from pathlib import Path
from typing import Any, Final, NamedTuple

from teale_proto.asking import AskState
from teale_proto.effects import PeerState, RelayState
from teale_proto.liveness import ON
from teale_proto.peer import ConversationState
from teale_proto.relay.client_states import NEXT_STATE

PROJECT_FILE: Final = Path(__file__).parent.parent / "pyproject.toml"
BOX_WIDTH: Final = 128
BOX_HEIGHT: Final = 44
LINE_HEIGHT: Final = 17


class Point(NamedTuple):
    """A place in a drawing, in pixels from its upper left corner."""

    x: float
    y: float


class Arrow(NamedTuple):
    """A labelled way from one state to another."""

    source: str
    target: str
    label: str


class Drawing:
    """Shapes that become one accessible `<figure>`."""

    def __init__(self, width: int, height: int, *, title: str, description: str) -> None:
        self._width = width
        self._height = height
        self._title = title
        self._description = description
        self._shapes: list[str] = []

    def box(
        self, at: Point, lines: Sequence[str], *, width: int = BOX_WIDTH, height: int = BOX_HEIGHT, kind: str
    ) -> None:
        """Draw a box around the centre `at`; the first line is its name, the others say more."""
        self._shapes.append(
            f'<rect class="{kind}" x="{at.x - width / 2:g}" y="{at.y - height / 2:g}" width="{width}" '
            f'height="{height}" rx="8"/>'
        )
        top = at.y - (len(lines) - 1) * LINE_HEIGHT / 2 + 5
        for number, line in enumerate(lines):
            self.text(Point(at.x, top + number * LINE_HEIGHT), line, kind="name" if not number else "more")

    def text(self, at: Point, text: str, *, kind: str, anchor: str = "middle") -> None:
        """Write one line with its baseline at `at`."""
        self._shapes.append(
            f'<text class="{kind}" x="{at.x:g}" y="{at.y:g}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def arrow(self, start: Point, end: Point, *, kind: str = "arrow") -> None:
        """Draw an arrow from `start` to `end`."""
        length = hypot(end.x - start.x, end.y - start.y)
        along = Point((end.x - start.x) / length, (end.y - start.y) / length)
        base = Point(end.x - 9 * along.x, end.y - 9 * along.y)
        left = Point(base.x - 4.5 * along.y, base.y + 4.5 * along.x)
        right = Point(base.x + 4.5 * along.y, base.y - 4.5 * along.x)
        self._shapes.append(
            f'<line class="{kind}" x1="{start.x:.1f}" y1="{start.y:.1f}" x2="{base.x:.1f}" y2="{base.y:.1f}"/>'
            f'<path class="head" d="M{end.x:.1f} {end.y:.1f}L{left.x:.1f} {left.y:.1f}L{right.x:.1f} {right.y:.1f}Z"/>'
        )

    def line(self, start: Point, end: Point, *, kind: str) -> None:
        """Draw a line without a head."""
        self._shapes.append(f'<line class="{kind}" x1="{start.x:g}" y1="{start.y:g}" x2="{end.x:g}" y2="{end.y:g}"/>')

    def label(self, at: Point, text: str) -> None:
        """Write a label that covers what is under it."""
        width = 7.1 * len(text) + 8
        self._shapes.append(
            f'<rect class="behind" x="{at.x - width / 2:g}" y="{at.y - 10:g}" width="{width:g}" height="19"/>'
        )
        self.text(Point(at.x, at.y + 4), text, kind="label")

    def figure(self) -> str:
        """Return the drawing as HTML that Markdown leaves alone: there is no empty line in it."""
        name = "".join(character if character.isalnum() else "-" for character in self._title.lower())
        return (
            f'<figure class="diagram">\n<svg role="img" viewBox="0 0 {self._width} {self._height}" '
            f'style="max-width:{self._width}px" aria-labelledby="{name}-title {name}-text">\n'
            f'<title id="{name}-title">{escape(self._title)}</title>\n'
            f'<desc id="{name}-text">{escape(self._description)}</desc>\n'
            + "\n".join(self._shapes)
            + "\n</svg>\n</figure>"
        )


# State diagrams.


def liveness_states() -> str:
    """Draw how a peer is judged by its heartbeats."""
    places = {PeerState.CONNECTED: Point(90, 50), PeerState.DEGRADED: Point(400, 50), PeerState.LOST: Point(400, 190)}
    return _states("States of a peer", (560, 230), places, _arrows(ON), start=PeerState.CONNECTED)


def relay_client_states() -> str:
    """Draw how a node comes to its relay, and back to it."""
    places = {
        RelayState.OFF: Point(90, 50),
        RelayState.CONNECTING: Point(330, 50),
        RelayState.REGISTERING: Point(570, 50),
        RelayState.CONNECTED: Point(570, 210),
        RelayState.WAITING: Point(330, 210),
    }
    return _states("States of the relay client", (660, 260), places, _arrows(NEXT_STATE), start=RelayState.OFF)


ASK_STEPS: Final = (
    Arrow("waiting", "sent", "given to a node"),
    Arrow("sent", "streaming", "first token"),
    Arrow("sent", "waiting", "failed or lost: retried"),
    Arrow("waiting", "failed", "nobody left, or time up"),
    Arrow("sent", "failed", "given up"),
    Arrow("sent", "finished", "complete"),
    Arrow("streaming", "finished", "complete"),
    Arrow("streaming", "failed", "node lost, or time up"),
)
"""What happens to a request, in words; `finished` and `failed` are ends rather than states."""

CONVERSATION_STEPS: Final = (
    Arrow("connecting", "handshaking", "opened"),
    Arrow("handshaking", "greeting", "keys agreed, through a relay"),
    Arrow("handshaking", "joining", "on the LAN"),
    Arrow("joining", "greeting", "welcome"),
    Arrow("greeting", "up", "hello, helloAck"),
)


def ask_states() -> str:
    """Draw what becomes of a request."""
    places = {
        AskState.WAITING.value: Point(90, 130),
        AskState.SENT.value: Point(350, 130),
        AskState.STREAMING.value: Point(610, 130),
        "failed": Point(350, 240),
        "finished": Point(480, 30),
    }
    return _states("States of a request", (700, 270), places, ASK_STEPS, start=AskState.WAITING)


def conversation_states() -> str:
    """Draw how a conversation with a peer comes up."""
    places = {
        ConversationState.CONNECTING.value: Point(84, 40),
        ConversationState.HANDSHAKING.value: Point(270, 40),
        ConversationState.JOINING.value: Point(420, 140),
        ConversationState.GREETING.value: Point(570, 40),
        ConversationState.UP.value: Point(790, 40),
    }
    return _states("States of a conversation", (874, 180), places, CONVERSATION_STEPS, start=None)


def _arrows(table: Mapping[Any, Enum]) -> list[Arrow]:
    """Return the arrows of a state table; what leads from everywhere to one state is one arrow from nowhere."""
    steps = [Arrow(state.value, target.value, trigger.value) for (state, trigger), target in table.items()]
    states = {step.source for step in steps} | {step.target for step in steps}
    arrows: dict[Arrow, None] = {}
    for step in steps:
        sources = {each.source for each in steps if each[1:] == step[1:]}
        from_anywhere = sources == states - {step.target} and len(sources) > 2
        arrows[Arrow("", step.target, f"{step.label}, from any state") if from_anywhere else step] = None
    return list(arrows)


def _states(
    title: str,
    size: tuple[int, int],
    places: Mapping[Any, Point],
    arrows: Sequence[Arrow],
    *,
    start: Enum | None,
) -> str:
    named = {state.value if isinstance(state, Enum) else state: place for state, place in places.items()}
    words = "; ".join(f"{arrow.source or 'any state'} to {arrow.target}: {arrow.label}" for arrow in arrows)
    drawing = Drawing(*size, title=title, description=words)
    both = {(arrow.source, arrow.target) for arrow in arrows}
    for arrow in arrows:
        if not arrow.source:
            end = named[arrow.target]
            drawing.arrow(Point(end.x, end.y + 90), Point(end.x, end.y + BOX_HEIGHT / 2), kind="arrow any")
            drawing.label(Point(end.x, end.y + 98), arrow.label)
        else:
            _draw_arrow(drawing, named[arrow.source], named[arrow.target], arrow, (arrow.target, arrow.source) in both)
    for state, place in named.items():
        kind = "state start" if start is not None and state == start.value else "state"
        drawing.box(place, [state], kind=kind)
    return drawing.figure()


def _draw_arrow(drawing: Drawing, start: Point, end: Point, arrow: Arrow, is_one_of_two: bool) -> None:
    length = hypot(end.x - start.x, end.y - start.y)
    along = Point((end.x - start.x) / length, (end.y - start.y) / length)
    # Two ways between the same states run side by side, each on its right.
    aside = 13 if is_one_of_two else 0
    shift = Point(-along.y * aside, along.x * aside)
    first = _edge(start, along, shift)
    last = _edge(end, Point(-along.x, -along.y), shift)
    drawing.arrow(first, last)
    is_level = abs(along.y) < 1e-9
    # Two that stand upright beside each other have no room for labels at one height: each is nearer to its beginning.
    part = 0.3 if is_one_of_two and not is_level else 0.5
    above = 0 if not is_level else 13 if is_one_of_two and along.x > 0 else -13
    at = Point(first.x + part * (last.x - first.x), first.y + part * (last.y - first.y) + above)
    drawing.label(at, arrow.label)


def _edge(centre: Point, along: Point, shift: Point) -> Point:
    """Return where a line from the centre of a box, moved aside by `shift`, leaves the box."""
    begin = Point(centre.x + shift.x, centre.y + shift.y)
    ways = []
    for speed, moved, half in ((along.x, shift.x, BOX_WIDTH / 2), (along.y, shift.y, BOX_HEIGHT / 2)):
        if abs(speed) > 1e-9:
            ways.append(((half if speed > 0 else -half) - moved) / speed)
    way = min(ways)
    return Point(begin.x + way * along.x, begin.y + way * along.y)


# The architecture.


def architecture() -> str:
    """Draw the one idea: the same machines under two drivers."""
    drawing = Drawing(
        760,
        210,
        title="One core, two drivers",
        description="teale_io and the simulator feed the machines of teale_proto inputs with the time and carry out "
        "the effects that they return. teale_io has sockets, clocks, entropy and models; the simulator virtual time, a "
        "simulated network and checkers. Neither imports the other.",
    )
    for x, lines, kind in (
        (105, ["teale_io", "sockets, clock,", "entropy, models"], "outer"),
        (380, ["teale_proto", "the machines:", "decide everything,", "touch nothing"], "core"),
        (655, ["simulator", "virtual time,", "networks, faults"], "outer"),
    ):
        drawing.box(Point(x, 105), lines, width=170, height=110, kind=kind)
    for left, right in ((Point(190, 80), Point(295, 80)), (Point(570, 80), Point(465, 80))):
        drawing.arrow(left, right)
        drawing.arrow(Point(right.x, 130), Point(left.x, 130))
        middle = (left.x + right.x) / 2
        drawing.text(Point(middle, 70), "inputs, now", kind="label")
        drawing.text(Point(middle, 150), "effects", kind="label")
    drawing.text(Point(380, 195), "an input is what happened; an effect is what must now be done", kind="more")
    return drawing.figure()


PACKAGE_LAYERS: Final = (
    ("scenarios", "worlds, and what must stay true"),
    ("simulator · teale_io", "two drivers that never meet"),
)

LAYER_TEXTS: Final[Mapping[str, str]] = {
    "journal": "what goes into a core, written down and read again",
    "node": "the switchboard",
    "node_out": "who is dialled on the LAN, what the relay is asked for, ways without it",
    "peers": "conversations, requests and work, whom one could talk to, the way through the relay, NATs",
    "meeting": "how two meet, who may come back, how they speak",
    "peer": "one other node, one's requests, one's work, who can be asked",
    "link": "one connection, one count of messages, one verdict about silence, one decision, one stranger at the door",
    "door": "who may join, and who has guessed wrong",
    "status": "what a node knows, as values",
    "node_address": "where a node is, as people pass it on",
    "secure": "keys, handshakes, records; messages, declared once",
    "timers": "deadlines, delays, what must now be done",
    "inputs": "what can happen",
    "errors": "two ways to be wrong; where randomness comes in",
    "contract": "time as integers, values in and out",
}
"""What is in a layer of the core, by the first of its modules."""


def core_layers() -> list[list[str]]:
    """Return the layers of the core, from above, as the test suite checks them."""
    contracts = tomllib.loads(PROJECT_FILE.read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[name.strip() for name in layer.split("|")] for layer in layers]


def layers() -> str:
    """Draw who stands on whom; each layer imports what is below it, never what is above."""
    height = 52
    rows = [(name, text, "outer") for name, text in PACKAGE_LAYERS]
    rows += [(" · ".join(names), LAYER_TEXTS[names[0]], "core") for names in core_layers()]
    drawing = Drawing(
        700,
        height * len(rows) + 16,
        title="Layers",
        description="From top to bottom, each using only what is below: "
        + "; ".join(f"{name} ({text})" for name, text, _ in rows),
    )
    for number, (name, text, kind) in enumerate(rows):
        drawing.box(Point(350, 8 + height * number + height / 2), [name, text], width=660, height=44, kind=kind)
    return drawing.figure()


RELAY_STEPS: Final = (
    (0, 1, "register"),
    (1, 0, "registerChallenge: 32 random bytes"),
    (0, 1, "registerProof: a signature"),
    (1, 0, "registerAck"),
    (0, 1, "discover"),
    (1, 0, "peers"),
    (0, 2, "relayOpen"),
    (2, 0, "relayReady"),
    (0, 2, "relayData: handshake message 1 (Noise IK)"),
    (2, 0, "relayData: handshake message 2"),
    (0, 2, "relayData: hello, encrypted"),
    (2, 0, "relayData: helloAck, encrypted"),
    (0, 2, "relayData: inferenceRequest, encrypted"),
    (2, 0, "relayData: inferenceChunk …, encrypted"),
)


def relay_session() -> str:
    """Draw a request through a relay, from the registration on."""
    names = ("asker", "relay", "server")
    columns = (90, 380, 670)
    top, step = 50, 34
    bottom = top + step * (len(RELAY_STEPS) + 1)
    words = "; ".join(f"{names[source]} to {names[target]}: {text}" for source, target, text in RELAY_STEPS)
    drawing = Drawing(760, bottom + 10, title="A request through the relay", description=words)
    for x, name in zip(columns, names, strict=True):
        drawing.line(Point(x, top), Point(x, bottom), kind="life")
        drawing.box(Point(x, 28), [name], height=36, kind="core" if name != "relay" else "outer")
    for number, (source, target, text) in enumerate(RELAY_STEPS):
        y = top + step * (number + 1)
        start, end = columns[source], columns[target]
        drawing.arrow(Point(start, y), Point(end, y), kind="arrow secret" if "data" in text.lower() else "arrow")
        drawing.label(Point((start + end) / 2, y - 11), text)
    return drawing.figure()

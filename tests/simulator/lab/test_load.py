"""What applications hear of their requests, whatever becomes of the node that they ask."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic

import pytest

from simulator.backend import ANSWER_MARKER, CostModel
from simulator.lab.load import Applications, Heard, Reply
from simulator.lab.plan import Order, Role
from simulator.lab.programs import Life, Program
from simulator.spec.load import AskSpec
from tests.simulator.lab.test_model_server import QUICK, server


class Node(Program):
    """A program that is said to be ready, and answers at a port."""

    def __init__(self, port: int, *, ready: bool = True) -> None:
        self.name, self.role = "node-0", Role.NODE
        self.api_port = port
        self.lives = [Life(1, Path("journal"), 0)]
        self.there = self._is_ready = ready

    @property
    def is_alive(self) -> bool:
        return self.there


def order(*, streaming: bool = True, model: str = "model-1", timeout: float = 20.0) -> Order:
    return Order(0, "node-0", AskSpec(0.0, "node-0", streaming=streaming, timeout=timeout), model)


def asked(node: Program, what: Order) -> Reply:
    applications = Applications(lambda _, port: socket.create_connection(("127.0.0.1", port)), lambda: 7)
    applications.ask(node, what)
    applications.finish(30.0)
    [reply] = applications.replies
    return reply


@pytest.mark.parametrize("streaming", [True, False])
def test_an_answer_is_heard_word_by_word_or_as_a_whole(streaming: bool) -> None:
    with server(QUICK) as url:
        reply = asked(Node(port_of(url)), order(streaming=streaming))
    assert (reply.heard, reply.status, reply.request) == (Heard.ANSWERED, 200, "ask-node-0-0")
    assert reply.text.startswith(f"{ANSWER_MARKER}-1 {ANSWER_MARKER}-2 ")
    assert (reply.first_at is not None) is streaming


def test_a_refusal_is_heard_with_its_reason() -> None:
    with server(QUICK) as url:
        reply = asked(Node(port_of(url)), order(model="another"))
    assert (reply.heard, reply.status) == (Heard.REFUSED, 404)
    assert "the model is not loaded" in reply.error


def test_a_failure_in_the_middle_of_an_answer_is_a_refusal_too() -> None:
    cost = CostModel(failure_chance=1.0, tokens_min=500, tokens_max=500, tokens_per_second=2000.0)
    with server(cost) as url:
        reply = asked(Node(port_of(url)), order())
    assert reply.heard is Heard.REFUSED
    assert reply.text


def test_a_node_that_dies_cuts_the_answer_off() -> None:
    with dying() as port:
        reply = asked(Node(port), order())
    assert reply.heard is Heard.CUT_OFF


def test_a_node_that_is_not_there_is_not_asked() -> None:
    assert asked(Node(1, ready=False), order(timeout=0.1)).heard is Heard.NOT_ASKED
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        # Nobody listens there.
        assert asked(Node(taken.getsockname()[1]), order()).heard is Heard.NOT_ASKED


def test_a_node_that_is_just_being_started_is_waited_for() -> None:
    with server(QUICK) as url:
        node = Node(port_of(url), ready=False)
        node.there = True
        applications = Applications(lambda _, port: socket.create_connection(("127.0.0.1", port)), lambda: 7)
        applications.ask(node, order())
        node._is_ready = True
        give_up_at = monotonic() + 20
        while not applications.replies and monotonic() < give_up_at:
            pass
        applications.finish(1.0)
    assert applications.replies[0].heard is Heard.ANSWERED


@contextmanager
def dying() -> Iterator[int]:
    """Run a server that begins an answer and then closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            there, _ = listener.accept()
            with there:
                there.recv(1 << 16)
                head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                there.sendall(head + b'2e\r\ndata: {"choices":[{"delta":{"content":"He"}}]}\r\n')

        thread = Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].removesuffix("/v1"))

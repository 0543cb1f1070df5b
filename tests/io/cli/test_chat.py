import pytest
from hypothesis import given
from hypothesis import strategies as st

from teale_io.cli.client import sse_events
from teale_io.cli.output import neutral
from teale_io.paths import Paths
from tests.io.cli.conftest import Teale
from tests.io.cli.fake_node import HELLO, FakeNode, chunk, stream
from tests.io.cli.terminal import Terminal
from tests.io.status import BOB


def test_an_answer_is_streamed_and_then_told_who_gave_it(teale_command: Teale, node: FakeNode) -> None:
    ended = teale_command("chat", "tiny", "Say", "hello")
    assert (ended.code, ended.out) == (0, "Hello\n")
    assert ended.err.startswith(f"answered by bob ({BOB[:16]}), over lan, at attempt 2, 2 tokens, ")
    (body,) = node.bodies
    assert body["messages"] == [{"role": "user", "content": "Say hello"}]
    assert (body["model"], body["stream"], body["stream_options"]) == ("tiny", True, {"include_usage": True})


def test_a_local_answer_was_given_by_this_node(teale_command: Teale, node: FakeNode) -> None:
    node.chat_headers = {"x-teale-served-by": "a1" * 32, "x-teale-path": "local", "x-teale-attempts": "1"}
    assert teale_command("chat", "Hi").err.startswith("answered by this node, 2 tokens")


def test_the_only_model_need_not_be_named(teale_command: Teale, node: FakeNode) -> None:
    assert teale_command("chat", "Say", "hello").code == 0
    assert node.bodies[0]["messages"] == [{"role": "user", "content": "Say hello"}]


def test_with_several_models_one_must_be_named(teale_command: Teale, node: FakeNode) -> None:
    node.offer("large", "tiny")
    ended = teale_command("chat", "Say hello")
    assert ended.code == 4
    assert "There are: large, tiny" in ended.err
    assert teale_command("chat", "large", "Say hello").code == 0
    assert teale_command("chat", "--model", "large", "tiny is a word of the prompt here").code == 0
    assert [body["model"] for body in node.bodies] == ["large", "large"]


def test_a_model_that_nobody_has_is_not_found(teale_command: Teale, node: FakeNode) -> None:
    ended = teale_command("chat", "--model", "huge", "Hi")
    assert ended.code == 4
    assert "There are: tiny" in ended.err
    node.offer()
    assert teale_command("chat", "Hi").code == 4


def test_the_prompt_can_be_piped(teale_command: Teale, node: FakeNode) -> None:
    assert teale_command("chat", "tiny", stdin="What is\nthis?\n").out == "Hello\n"
    assert node.bodies[0]["messages"][-1]["content"] == "What is\nthis?"


def test_an_empty_pipe_is_a_usage_error(teale_command: Teale, node: FakeNode) -> None:
    assert teale_command("chat", stdin=" \n").code == 2


def test_instructions_and_sampling_are_passed_on(teale_command: Teale, node: FakeNode) -> None:
    options = ("--system", "Be brief.", "--temperature", "0", "--max-tokens", "5", "--seed", "7")
    assert teale_command("chat", *options, "Hi").code == 0
    (body,) = node.bodies
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0.0, 5, 7)


def test_an_answer_for_programs_is_one_document(teale_command: Teale, node: FakeNode) -> None:
    ended = teale_command("chat", "Hi", "--json")
    document = ended.document
    assert ended.err == ""
    assert document.pop("seconds") >= document.pop("seconds_to_first_token") >= 0
    assert document == {
        "model": "tiny",
        "text": "Hello",
        "finish_reason": "stop",
        "usage": {"completion_tokens": 2},
        "served_by": BOB,
        "path": "lan",
        "attempts": 2,
    }


def test_an_answer_cannot_steer_the_terminal_and_keeps_its_lines(teale_command: Teale, node: FakeNode) -> None:
    node.say("a\n\tb\r\n\x1b[2J\x9b\u202e[red]c\x00")
    assert teale_command("chat", "Hi").out == "a\n\tb\n\\x1b[2J\\x9b\\u202e[red]c\\x00\n"
    assert teale_command("chat", "Hi", "--json").document["text"] == "a\n\tb\r\n\x1b[2J\x9b\u202e[red]c\x00"


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [(404, "model_not_found", 4), (504, "timeout", 6), (429, "queue_full", 5), (502, "peer_lost", 5), (503, None, 5)],
)
def test_a_refusal_is_passed_on_with_the_exit_code_that_fits(
    teale_command: Teale, node: FakeNode, status: int, code: str | None, exit_code: int
) -> None:
    node.answer_json("/v1/chat/completions", {"error": {"message": "It is so.", "code": code}}, status=status)
    ended = teale_command("chat", "Hi")
    assert (ended.code, ended.out, ended.err) == (exit_code, "", "error: It is so.\n")


@pytest.mark.parametrize(("code", "exit_code"), [("peer_lost", 5), ("timeout", 6)])
def test_an_answer_that_breaks_off_keeps_its_text_and_is_an_error(
    teale_command: Teale, node: FakeNode, code: str, exit_code: int
) -> None:
    broken = {"error": {"message": "the peer went away", "code": code}}
    node.answers["/v1/chat/completions"] = (200, stream(chunk("Hel"), broken, done=False))
    ended = teale_command("chat", "Hi")
    assert (ended.code, ended.out) == (exit_code, "Hel\n")
    assert ended.err == "error: The answer broke off: the peer went away\n"


def test_an_answer_that_ends_without_saying_so_is_an_error(teale_command: Teale, node: FakeNode) -> None:
    node.answers["/v1/chat/completions"] = (200, stream(*HELLO, done=False))
    ended = teale_command("chat", "Hi", "--json")
    assert ended.code == 5
    assert "broke off" in ended.document["error"]["message"]


@pytest.mark.parametrize(
    "strange",
    [
        {"choices": []},
        {"choices": "x"},
        {"choices": [3]},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {"content": 5}}]},
        {"usage": 3},
        {"choices": [{"delta": {"role": "assistant"}, "finish_reason": 3}]},
    ],
)
def test_chunks_without_text_are_passed_over(teale_command: Teale, node: FakeNode, strange: dict[str, object]) -> None:
    node.answers["/v1/chat/completions"] = (200, stream(strange, chunk("ok")))
    assert teale_command("chat", "Hi").out == "ok\n"


@pytest.mark.parametrize(
    "data", [b"data: {\n\n", b"data: []\n\n", b"data: \xff\n\n", b"data: " + b"[" * 5000 + b"\n\n"]
)
def test_a_stream_of_nonsense_is_an_error_in_a_sentence(teale_command: Teale, node: FakeNode, data: bytes) -> None:
    node.answers["/v1/chat/completions"] = (200, data)
    ended = teale_command("chat", "Hi")
    assert ended.code == 5
    assert ended.err.startswith("error: The node's answer makes no sense here")


def test_a_conversation_on_a_terminal_remembers_what_was_said(node: FakeNode, paths: Paths) -> None:
    with Terminal(paths, "", "chat") as terminal:
        terminal.expect("> ")
        terminal.type("Hi\n")
        terminal.expect("answered by bob")
        terminal.expect("> ")
        terminal.type("And now?\n")
        terminal.expect("answered by bob")
        terminal.expect("> ")
        terminal.type("/bye\n")
        assert terminal.ended() == 0
    assert [message["content"] for message in node.bodies[1]["messages"]] == ["Hi", "Hello", "And now?"]


def test_a_failed_turn_ends_neither_the_conversation_nor_enters_it(node: FakeNode, paths: Paths) -> None:
    good = node.answers["/v1/chat/completions"]
    node.answer_json("/v1/chat/completions", {"error": {"message": "It is so.", "code": "queue_full"}}, status=429)
    with Terminal(paths, "", "chat", "tiny") as terminal:
        terminal.expect("> ")
        terminal.type("Hi\n")
        terminal.expect("It is so.")
        node.answers["/v1/chat/completions"] = good
        terminal.expect("> ")
        terminal.type("Again\n")
        terminal.expect("answered by bob")
        terminal.expect("> ")
        terminal.type("\x04")
        assert terminal.ended() == 0
    assert [message["content"] for message in node.bodies[1]["messages"]] == ["Again"]


def test_interrupting_is_code_130(node: FakeNode, paths: Paths) -> None:
    with Terminal(paths, "", "chat") as terminal:
        terminal.expect("> ")
        assert terminal.interrupted() == 130


@given(st.text())
def test_neutral_text_has_no_control_characters_and_stays_so(text: str) -> None:
    plain = neutral(text)
    assert neutral(plain) == plain
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in plain)
    assert set(neutral(text, multiline=True)) <= set(plain) | set("\n\t")


def test_events_are_read_as_the_standard_says() -> None:
    lines = [": ping", "", "event: x", "data:one", "data: two", "", "data", "", "id: 7", "", "data: cut off"]
    assert list(sse_events(lines)) == ["one\ntwo", ""]

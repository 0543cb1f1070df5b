"""The runner, with small cores under trio's virtual clock."""

import time
from collections.abc import Callable, Sequence
from typing import get_args

import pytest
import trio
import trio.testing

from teale_io.clock import now, unix_time_at_zero
from teale_io.runner import Runner
from teale_proto.contract import NEVER, SECOND, Duration, Instant, Value
from teale_proto.errors import LocalError
from teale_proto.inputs import Woken


class Set(Value):
    """Wake me after this long."""

    delay: Duration


class Echo(Value):
    """Come back as this many inputs."""

    count: int


class Forbidden(Value):
    """Refused by every core here."""


class Bug(Value):
    """Breaks every core here."""


class Say(Value):
    word: str


class Feed(Value):
    """Feeds an input while effects are being performed."""

    event: "Set | Echo | Forbidden | Bug"


Input = Set | Echo | Forbidden | Bug
Effect = Say | Feed


class Alarm:
    """Says when it is woken; refuses and breaks on demand."""

    def __init__(self) -> None:
        self.deadline: Instant = NEVER
        self.handled_at: list[Instant] = []

    def handle(self, event: Input | Woken, now: Instant) -> Sequence[Effect]:
        self.handled_at.append(now)
        if isinstance(event, Set):
            self.deadline = now + event.delay
            return []
        if isinstance(event, Echo):
            return [*(Feed(Echo(0)) for _ in range(event.count)), Say(f"echo {event.count}")]
        if isinstance(event, Forbidden):
            raise LocalError("not now")
        if isinstance(event, Bug):
            raise ZeroDivisionError
        if now < self.deadline:
            return [Say("early")]
        self.deadline = NEVER
        return [Say("woken")]


class Stuck(Alarm):
    """Breaks the fourth law: after a wake its deadline has not moved."""

    def handle(self, event: Input | Woken, now: Instant) -> Sequence[Effect]:
        self.deadline = now
        return []


class Busy(Alarm):
    """Asks, when woken, for something to be done, and to be woken once more very soon."""

    def handle(self, event: Input | Woken, now: Instant) -> Sequence[Effect]:
        self.handled_at.append(now)
        if not isinstance(event, Woken):
            self.deadline = now if len(self.handled_at) == 1 else self.deadline
            return []
        is_first = self.deadline == self.handled_at[0]
        self.deadline = now + 1 if is_first else NEVER
        return [Say("work"), Feed(Echo(0))] if is_first else [Say("done")]


def runner_of(core: Alarm, say: Callable[[str], object]) -> Runner[Input, Effect]:
    runner: Runner[Input, Effect] = Runner(core, get_args(Effect))
    runner.perform_with({Say: lambda effect: say(effect.word), Feed: lambda effect: runner.feed(effect.event)})
    return runner


async def test_a_core_is_woken_at_its_deadline(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    core, said = Alarm(), trio.Event()
    runner = runner_of(core, lambda _: said.set())
    nursery.start_soon(runner.run)
    began = now()
    runner.feed(Set(7 * SECOND))
    await said.wait()
    assert now() - began == 7 * SECOND
    assert core.handled_at == [began, began + 7 * SECOND]


async def test_a_deadline_that_comes_closer_moves_the_wake_up(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    said = trio.Event()
    runner = runner_of(Alarm(), lambda _: said.set())
    nursery.start_soon(runner.run)
    began = now()
    runner.feed(Set(7 * SECOND))
    await trio.sleep(1)
    runner.feed(Set(2 * SECOND))
    await said.wait()
    assert now() - began == 3 * SECOND


async def test_a_deadline_that_recedes_wakes_nobody_early(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    words: list[str] = []
    said = trio.Event()

    def say(word: str) -> None:
        words.append(word)
        said.set()

    runner = runner_of(Alarm(), say)
    nursery.start_soon(runner.run)
    began = now()
    runner.feed(Set(2 * SECOND))
    await trio.sleep(1)
    runner.feed(Set(5 * SECOND + 1))
    await said.wait()
    assert (words, now() - began) == (["woken"], 6 * SECOND + 1)


async def test_an_input_that_arises_from_an_effect_waits_until_all_effects_are_performed() -> None:
    words: list[str] = []
    runner_of(Alarm(), words.append).feed(Echo(2))
    assert words == ["echo 2", "echo 0", "echo 0"]


async def test_a_refused_command_raises_where_it_was_given_and_breaks_nothing() -> None:
    words: list[str] = []
    runner = runner_of(Alarm(), words.append)
    with pytest.raises(LocalError, match="not now"):
        runner.feed(Forbidden())
    runner.feed(Echo(0))
    assert words == ["echo 0"]


@pytest.mark.parametrize(
    ("event", "error"),
    [(Bug(), ZeroDivisionError), (Echo(1), ZeroDivisionError)],
    ids=["in the core", "in a performer"],
)
async def test_a_bug_ends_the_run_and_the_core_gets_no_further_input(event: Input, error: type[Exception]) -> None:
    core = Alarm()
    runner = runner_of(core, lambda word: 1 / 0)
    runner.feed(event)
    handled = len(core.handled_at)
    runner.feed(Set(1))
    with pytest.raises(error):
        await runner.run()
    assert len(core.handled_at) == handled


async def test_a_command_refused_after_its_giver_returned_is_a_bug() -> None:
    runner: Runner[Input, Effect] = Runner(Alarm(), get_args(Effect))
    runner.perform_with({Say: lambda effect: runner.feed(Forbidden()), Feed: lambda effect: None})
    runner.feed(Echo(0))
    with pytest.raises(LocalError, match="not now"):
        await runner.run()


async def test_a_bug_surfaces_while_the_runner_sleeps(autojump_clock: trio.testing.MockClock) -> None:
    runner = runner_of(Alarm(), print)

    async def feed_later() -> None:
        await trio.testing.wait_all_tasks_blocked()
        runner.feed(Bug())

    async def run_both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed_later)
            nursery.start_soon(runner.run)

    with pytest.raises(ExceptionGroup) as raised:
        await run_both()
    assert isinstance(raised.value.exceptions[0], ZeroDivisionError)


async def test_a_core_that_asks_for_the_same_instant_again_is_a_bug_not_a_busy_loop() -> None:
    runner = runner_of(Stuck(), print)
    runner.feed(Set(0))
    with pytest.raises(RuntimeError, match="Stuck asks to be woken again"):
        await runner.run()


async def test_work_that_takes_until_after_the_next_deadline_is_no_bug_of_the_core(
    mock_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    core, said = Busy(), trio.Event()

    def say(word: str) -> None:
        if word == "work":
            # As when hundreds of sockets are opened.
            mock_clock.jump(0.1)
        else:
            said.set()

    runner = runner_of(core, say)
    runner.feed(Set(0))
    nursery.start_soon(runner.run)
    with trio.fail_after(10):
        await said.wait()
    began, woken, told, again = core.handled_at
    assert (began, woken) == (told - 100_000, told - 100_000)
    assert again == told


def test_every_type_of_effect_needs_its_performer() -> None:
    runner: Runner[Input, Effect] = Runner(Alarm(), get_args(Effect))
    with pytest.raises(LocalError, match="nothing performs Feed"):
        runner.perform_with({Say: print})


async def test_time_never_runs_backwards() -> None:
    core = Alarm()
    await feed_in_runs_with_clocks_at(runner_of(core, print), 5.0, 3.0, 8.0)
    assert core.handled_at == [5 * SECOND, 5 * SECOND, 8 * SECOND]


async def feed_in_runs_with_clocks_at(runner: Runner[Input, Effect], *seconds: float) -> None:
    """Feed once in each of several trio runs, whose clocks have nothing to do with each other."""

    async def feed() -> None:
        runner.feed(Set(SECOND))

    def run(at: float) -> None:
        clock = trio.testing.MockClock()
        clock.jump(at)
        trio.run(feed, clock=clock)

    for at in seconds:
        await trio.to_thread.run_sync(run, at)


async def test_the_calendar_is_fixed_to_the_clock(autojump_clock: trio.testing.MockClock) -> None:
    zero = unix_time_at_zero()
    assert zero + now() > 1_700_000_000 * SECOND


def test_programs_of_one_machine_agree_on_the_calendar_within_microseconds() -> None:
    """Each run of trio has a clock with a zero of its own, as programs have; the journals of all are put together."""

    async def calendar() -> float:
        zero = unix_time_at_zero()
        tries = []
        for _ in range(20):
            before, here, after = time.perf_counter(), trio.current_time(), time.perf_counter()
            tries.append((after - before, zero + (here - (before + after) / 2) * SECOND))
        return min(tries)[1]

    shown = [trio.run(calendar) for _ in range(5)]
    assert max(shown) - min(shown) < 20

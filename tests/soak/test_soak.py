"""A real relay and real nodes for an hour: they join, leave, ask, are killed and come back.

Memory and descriptors of those that stay are flat; every request ends, once, with the right answer or an honest
error. `TEALE_SOAK_MINUTES` says how long, `TEALE_SOAK_SEED` repeats one course of events, and the figures go to the
file that `TEALE_SOAK_REPORT` names.
"""

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.harness import Node, Relay, Stage, eventually
from tests.soak.conftest import minutes
from tests.soak.echoing import MODEL, answer_to, echoing_server
from tests.soak.gauges import Gauge

ASKING_THREADS = 3
ASK_PAUSE_SECONDS = 0.05
TROUBLE_SECONDS = 8
READING_SECONDS = 3
HEARTBEAT_SECONDS = 5
FAILURES_MAX = 0.2
"""How many of the requests may end with an error, of those asked while servers are killed under them."""


class Asker(threading.Thread):
    """Asks one question after the other, and knows the right answers."""

    def __init__(self, node: Node, number: int, stop: threading.Event) -> None:
        super().__init__(name=f"asker {number}")
        self._node = node
        self._number = number
        self._stop_wanted = stop
        self.outcomes: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.slowest_seconds = 0.0
        self.wrong: list[str] = []

    def run(self) -> None:
        asked = 0
        while not self._stop_wanted.wait(ASK_PAUSE_SECONDS):
            asked += 1
            prompt = f"question {asked} of {self._number}"
            began = time.monotonic()
            try:
                reply = self._node.chat(prompt, model=MODEL, stream=bool(asked % 3))
            except httpx.HTTPError as error:
                self.wrong.append(f"{prompt}: {error!r}")
                continue
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
            if reply.error is not None:
                self.outcomes[f"error {reply.error['code']}"] += 1
                self.errors[reply.error["message"][:200]] += 1
                said = "".join(answer_to(prompt))
                if not said.startswith(reply.text):
                    self.wrong.append(f"{prompt}: {reply.text!r} before an error")
            elif reply.text == "".join(answer_to(prompt)):
                self.outcomes["answered"] += 1
                self.outcomes["retried"] += reply.attempts not in ("", "1")
            else:
                self.wrong.append(f"{prompt}: {reply.text!r}")


class Trouble:
    """What happens to the nodes that do not stay; one of the servers is always left alone."""

    def __init__(self, stage: Stage, rng: random.Random, settings: dict[str, Any], servers: list[Node]) -> None:
        self._stage = stage
        self._rng = rng
        self._settings = settings
        self._servers = servers
        self._visitors = 0
        self.happened: Counter[str] = Counter()

    def make(self) -> None:
        kinds: list[Callable[[], None]] = [self._kill, self._kill, self._restart, self._visit]
        kind = self._rng.choice(kinds)
        kind()
        self.happened[kind.__name__.strip("_")] += 1

    def _kill(self) -> None:
        self._replace(lambda node: node.kill())

    def _restart(self) -> None:
        def stop(node: Node) -> None:
            assert node.stop() == 0

        self._replace(stop)

    def _replace(self, end: Callable[[Node], None]) -> None:
        at = self._rng.randrange(1, len(self._servers))
        end(self._servers[at])
        self._stage.programs.remove(self._servers[at])
        self._servers[at] = self._stage.start(self._servers[at].name)
        self._servers[at].wait_until_up()

    def _visit(self) -> None:
        """A node comes, asks something, and goes."""
        self._visitors += 1
        visitor = self._stage.node("visitor", **{**self._settings, "openai_urls": []})
        visitor.wait_for_peers(self._servers[0], model=MODEL)
        prompt = f"a visitor's question {self._visitors}"
        reply = visitor.chat(prompt, model=MODEL)
        assert reply.text == "".join(answer_to(prompt)) or reply.error is not None
        (visitor.kill if self._rng.random() < 0.5 else visitor.stop)()
        self._stage.programs.remove(visitor)


def reports_of(node: Node, stop: threading.Event) -> tuple[threading.Thread, Counter[str], Counter[str]]:
    """Follow a node's reports; return the thread, and how often each request was taken up and ended."""
    attempts: Counter[str] = Counter()
    ends: Counter[str] = Counter()

    def follow() -> None:
        with (
            suppress(httpx.HTTPError),
            httpx.Client(trust_env=False, timeout=30) as client,
            client.stream("GET", f"{node.url}/api/events") as response,
        ):
            for line in response.iter_lines():
                if line.startswith("data: "):
                    report = json.loads(line[6:])
                    attempts[report.get("request", "")] += report["kind"] == "ReportAttempt"
                    ends[report.get("request", "")] += report["kind"] in ("ReportFinished", "ReportFailed")
                if stop.is_set():
                    return

    thread = threading.Thread(target=follow, name="reports")
    thread.start()
    return thread, attempts, ends


def restart(relay: Relay, stage: Stage) -> Relay:
    relay.kill()
    stage.programs.remove(relay)
    return stage.relay(port=relay.port)


@pytest.mark.soak
def test_an_hour_of_joining_leaving_asking_and_failing(stage: Stage, commit: str) -> None:
    seed = int(os.environ.get("TEALE_SOAK_SEED", random.SystemRandom().randrange(2**32)))
    print(f"seed {seed}, commit {commit}")
    rng, lasts = random.Random(seed), minutes("TEALE_SOAK_MINUTES", 60) * 60
    stop, listening_ends = threading.Event(), threading.Event()
    with echoing_server() as url:
        relay = stage.relay()
        settings = {
            "wan_enabled": True,
            "wan_relay_url": relay.url,
            "heartbeat_seconds": HEARTBEAT_SECONDS,
            "openai_urls": [url],
            "log_level": "info",
            "request_timeout_seconds": 30,
        }
        servers = stage.nodes({f"server-{number}": settings for number in range(3)})
        relay.wait_for_nodes(*servers, model=MODEL)
        asker = stage.node("asker", **{**settings, "openai_urls": []})
        asker.wait_for_peers(*servers, model=MODEL)
        # Once, early: what comes back is then measured for the rest of the time.
        relay = restart(relay, stage)
        asker.wait_for_peers(servers[0], model=MODEL)
        gauges = [Gauge("relay", relay.pid), Gauge("asker", asker.pid), Gauge("server", servers[0].pid)]
        following, attempts, ends = reports_of(asker, listening_ends)
        askers = [Asker(asker, number, stop) for number in range(ASKING_THREADS)]
        trouble = Trouble(stage, rng, settings, servers)
        try:
            for thread in askers:
                thread.start()
            _endure(lasts, gauges, trouble)
        finally:
            stop.set()
            for thread in askers:
                thread.join()
        eventually(lambda: asker.get("/api/status")["asked"] == 0, "nothing is left of the requests")
        listening_ends.set()
        asker.post("/v1/chat/completions", {"model": "nothing", "messages": [{"role": "user", "content": "wake"}]})
        following.join(60)
        outcomes = sum((thread.outcomes for thread in askers), Counter[str]())
        figures = {
            "seed": seed,
            "commit": commit,
            "minutes": round(lasts / 60, 2),
            "outcomes": outcomes,
            "errors": sum((thread.errors for thread in askers), Counter[str]()).most_common(8),
            "slowest_seconds": round(max(thread.slowest_seconds for thread in askers), 2),
            "trouble": trouble.happened,
            **{gauge.name: gauge.figures() for gauge in gauges},
        }
        print(json.dumps(figures, indent=2))
        if report := os.environ.get("TEALE_SOAK_REPORT"):
            Path(report).write_text(json.dumps(figures, indent=2))
        assert [wrong for thread in askers for wrong in thread.wrong] == []
        ended = [count for request, count in ends.items() if attempts[request]]
        assert set(ended) <= {1}, "a request ended twice, or never"
        assert outcomes["answered"] >= (1 - FAILURES_MAX) * (outcomes.total() - outcomes["retried"])
        for gauge in gauges:
            gauge.check()
        for program in (relay, asker, servers[0]):
            assert "Traceback" not in program.log
            assert program.stop() == 0


def _endure(lasts: float, gauges: list[Gauge], trouble: Trouble) -> None:
    """Make trouble and read the gauges until the time is up."""
    until = time.monotonic() + lasts
    trouble_at = time.monotonic() + TROUBLE_SECONDS
    while (now := time.monotonic()) < until:
        for gauge in gauges:
            gauge.read()
        if now >= trouble_at:
            trouble.make()
            trouble_at = time.monotonic() + TROUBLE_SECONDS
        time.sleep(READING_SECONDS)

"""All trials, round after round; what they have given, and whether the machine was quiet."""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Final

import msgspec

from simulator.calibrating import quiet
from simulator.calibrating.api import Api
from simulator.calibrating.clocks import Precision
from simulator.calibrating.figures import Samples
from simulator.calibrating.measuring import Plan
from simulator.calibrating.model_trials import UPSTREAM_COST, UPSTREAM_MODEL, Ask, ModelTrials, UpstreamTrials
from simulator.calibrating.node_trials import NodeTrials
from simulator.calibrating.path_trials import PathTrials, own_address, relay_for_paths
from simulator.calibrating.programs import CalibrationError, Folders, ModelServer, Node, Program, Relay
from simulator.calibrating.relay_trials import RelayTrials
from simulator.costs import HardwareProfile
from simulator.lab.plan import TINY

SECONDS_MAX: Final = 115.0
"""After which no further round is begun."""
BUSY: Final = 0.5
"""A load average, a core, above which the machine counts as busy with other things."""

BACKENDS: Final = 2
"""Of the node that is measured."""

Tell = Callable[[str], None]


class Measured:
    """What all rounds have given."""

    def __init__(self) -> None:
        self.samples: Final = Samples()
        self.asked: list[Ask] = []
        """What was asked of the built-in model; nothing where there is none."""
        self.hardware: HardwareProfile | None = None
        """What nodes of this machine say that they compute with."""
        self.notes: list[str] = []
        """What somebody who reads the figures has to know."""
        self.rounds = 0
        self.seconds = 0.0
        self.load_before = os.getloadavg()[0]
        self.precision: Precision | None = None
        self.as_in_lab = False
        """Whether the programs wrote journals and had neighbours."""

    @property
    def was_quiet(self) -> bool:
        """Whether the machine was idle before."""
        return self.load_before <= BUSY * (os.cpu_count() or 1)


def measure_apart(plan: Plan, tell: Tell = lambda _: None) -> Measured:
    """Measure everything in a network of this process's own, if it may have one; it does not come back from there."""
    is_apart = quiet.enter()
    measured = measure(plan, tell)
    if not is_apart:
        measured.notes.append(quiet.WITHOUT)
    return measured


def measure(plan: Plan, tell: Tell = lambda _: None) -> Measured:
    """Measure everything; raises CalibrationError and OSError where a program does not do what it should."""
    began, measured = time.monotonic(), Measured()
    if not measured.was_quiet:
        measured.notes.append(f"the machine was busy with other things: load average {measured.load_before:.2f}")
    with ExitStack() as stack:
        folders = stack.enter_context(Folders())
        tell("starting a relay and nodes")
        trials, paths, idle = _trials(stack, folders, plan, measured)
        tell("warming up")
        for trial in (*trials, *([] if paths is None else [paths])):
            trial.warm_up()
        for number in range(plan.rounds):
            if time.monotonic() - began > SECONDS_MAX * number / (number + 1) and number:
                measured.notes.append(f"only {number} of {plan.rounds} rounds: one takes longer here than it should")
                break
            tell(f"round {number + 1} of {plan.rounds}")
            _round(trials, idle, measured.samples)
            if paths is not None:
                paths.round()
            measured.rounds = number + 1
    measured.seconds = time.monotonic() - began
    return measured


_Trials = RelayTrials | NodeTrials | ModelTrials | UpstreamTrials


def _trials(
    stack: ExitStack, folders: Folders, plan: Plan, measured: Measured
) -> tuple[list[_Trials], PathTrials | None, list[Program]]:
    """Return the trials, that of direct paths apart, and programs that have nothing to do while the others go on."""
    samples = measured.samples
    for _ in range(os.cpu_count() or 1) if plan.as_in_lab else ():
        stack.enter_context(Program("simulator.calibrating.neighbour", home=folders.new(), journal=False))
    relay = stack.enter_context(Relay(folders.new(), journal=plan.as_in_lab))
    measured.precision, measured.as_in_lab = relay.cpu.precision, plan.as_in_lab
    samples.add("relay start, µs", relay.start_us)
    settings = {"lan_enabled": True, "wan_direct": False, **relay.settings}
    server = stack.enter_context(ModelServer(folders.new(), UPSTREAM_MODEL, UPSTREAM_COST))
    backends = {"builtin_model": True, "openai_urls": [server.url]}
    node = stack.enter_context(Node(folders.new(), journal=plan.as_in_lab, **backends, **settings))
    samples.add("node start, µs", node.start_us)
    measured.hardware = _hardware_of(node)
    trials: list[_Trials] = [RelayTrials(stack, relay, plan, samples)]
    models = None
    try:
        _wait_for_model(node, TINY)
        models = ModelTrials(stack, node, plan, samples)
        measured.asked = models.asked
    except CalibrationError as error:
        measured.notes.append(f"the built-in model was not measured: {error}")
    trials.append(NodeTrials(stack, node, relay, plan, samples))
    _wait_for_model(node, UPSTREAM_MODEL)
    trials.append(UpstreamTrials(stack, node, plan, samples))
    if models is not None:
        trials.append(models)
    address = own_address()
    beside = stack.enter_context(relay_for_paths(folders, address, journal=plan.as_in_lab))
    idle: list[Program] = [beside, stack.enter_context(Node(folders.new(), journal=plan.as_in_lab, **beside.settings))]
    if address is None:
        measured.notes.append("QUIC was not measured: this machine has no address but loopback")
        return trials, None, idle
    return trials, PathTrials(stack, beside, server, folders, plan, samples), idle


def _round(trials: list[_Trials], idle: list[Program], samples: Samples) -> None:
    """Measure everything that is done to some programs, and what others need that meanwhile do nothing."""
    began, before = time.monotonic(), [program.cpu.read_us() for program in idle]
    for trial in trials:
        trial.round()
    seconds = time.monotonic() - began
    for program, used in zip(idle, before, strict=True):
        samples.add(f"{program.name} idle, µs/s", (program.cpu.read_us() - used) / seconds)


def _hardware_of(node: Node) -> HardwareProfile:
    with closing(Api(node)) as api:
        said = api.get("/api/status")["hardware"]
    return msgspec.convert({field: said[field] for field in HardwareProfile.__struct_fields__}, HardwareProfile)


def _wait_for_model(node: Node, model: str) -> None:
    with closing(Api(node)) as api:

        def look() -> bool:
            status = api.get("/api/status")
            if model in status["loaded_models"]:
                return True
            # The other of the two models may have one.
            problems = [str(problem) for problem in status["problems"]]
            if len(problems) == BACKENDS or (problems and model == TINY and status["loaded_models"]):
                raise CalibrationError("; ".join(problems))
            return False

        node.wait_for("model", look)

"""How ports are chosen, told from samples, and what comes next."""

from collections import Counter

import pytest

from simulator.rng import SplitMix64
from teale_proto.contract import NEVER
from teale_proto.errors import LocalError
from teale_proto.inputs import WAKE, Address
from teale_proto.nat.allocation import (
    Allocation,
    AllocationSampling,
    Pattern,
    ReportAllocation,
    Sample,
    SamplingStarted,
    allocation_from,
)
from teale_proto.nat.birthday import Guesses

SAMPLES = {
    "counting": ([5000, 5001, 5002], Allocation(Pattern.SEQUENTIAL, 1)),
    "counting by four": ([5000, 5004, 5008, 5012], Allocation(Pattern.SEQUENTIAL, 4)),
    "counting for others too": ([5000, 5006, 5008], Allocation(Pattern.SEQUENTIAL, 2)),
    "random": ([5000, 61234, 20000], Allocation(Pattern.RANDOM)),
    "down": ([5000, 4999, 4998], Allocation(Pattern.RANDOM)),
    "preserving": ([40000, 40001, 40002], Allocation(Pattern.PRESERVING)),
    "too few": ([5000, 5001], None),
}


@pytest.mark.parametrize(("ports", "expected"), SAMPLES.values(), ids=SAMPLES)
def test_a_few_ports_in_order_tell_the_pattern(ports: list[int], expected: Allocation | None) -> None:
    assert allocation_from([Sample(40000, port) for port in ports]) == expected


def test_one_mapping_seen_twice_counts_once() -> None:
    assert allocation_from([Sample(1, 5000), Sample(1, 5000), Sample(2, 5001)]) is None


def test_what_comes_next() -> None:
    assert Allocation(Pattern.SEQUENTIAL, 3).following(100, 3) == (103, 106, 109)
    assert Allocation(Pattern.PRESERVING).following(100, 3) == (100, 101, 102)
    assert Allocation(Pattern.SEQUENTIAL, 3).following(65530, 5) == (65533,)


def test_sampling_comes_to_an_end_where_nobody_answers() -> None:
    local, server = Address("10.0.0.2", 1), Address("192.0.2.1", 3478)
    core = AllocationSampling([local], [server] * 3, SplitMix64(1))
    assert len(core.handle(SamplingStarted(), 0)) == 1
    effects = []
    while core.deadline != NEVER:
        at = core.deadline
        assert core.handle(WAKE, at - 1) == []
        effects = [*core.handle(WAKE, at)]
        assert core.deadline > at
    assert effects == [ReportAllocation(None)]
    with pytest.raises(LocalError):
        core.handle(SamplingStarted(), 10**9)
    with pytest.raises(LocalError):
        AllocationSampling([local], [server], SplitMix64(1))


def test_every_port_is_guessed_once_and_in_an_order_that_the_seed_decides() -> None:
    guesses = Guesses(SplitMix64(7), low=2000, high=2999)
    drawn = [guesses.next() for _ in range(1000)]
    assert sorted(port for port in drawn if port) == list(range(2000, 3000))
    assert guesses.next() is None
    again = Guesses(SplitMix64(7), low=2000, high=2999)
    assert [again.next() for _ in range(5)] == drawn[:5]
    first = Counter((Guesses(SplitMix64(seed), low=1, high=4).next()) for seed in range(4000))
    assert all(900 < first[port] < 1100 for port in range(1, 5))

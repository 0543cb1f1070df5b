"""Random streams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.rng import SplitMix64, stream
from teale_proto.rng import Rng


def test_splitmix64_gives_the_published_sequence() -> None:
    rng = SplitMix64(1234567)
    assert [rng.next64() for _ in range(5)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_a_stream_follows_from_seed_name_and_purpose_alone() -> None:
    assert stream(7, "node-03", "core 1").next64() == 0x4BBD42C5CD2FD926
    assert stream(7, "node-03", "core 1").next64() == stream(7, "node-03", "core 1").next64()


@pytest.mark.parametrize(
    ("seed", "name", "purpose"),
    [(8, "node-03", "core 1"), (7, "node-04", "core 1"), (7, "node-03", "core 2"), (7, "node-03c", "ore 1")],
)
def test_streams_that_differ_in_anything_are_different(seed: int, name: str, purpose: str) -> None:
    assert stream(seed, name, purpose).next64() != stream(7, "node-03", "core 1").next64()


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**130))
def test_randrange_stays_in_its_range(state: int, stop: int) -> None:
    assert 0 <= SplitMix64(state).randrange(stop) < stop


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(), max_size=20), st.data())
def test_a_sample_has_distinct_elements_of_the_population(
    state: int, population: list[int], data: st.DataObject
) -> None:
    indices = range(len(population))
    k = data.draw(st.integers(0, len(population)))
    chosen = SplitMix64(state).sample(indices, k)
    assert len(chosen) == len(set(chosen)) == k
    assert set(chosen) <= set(indices)


@given(st.integers(0, 2**64 - 1), st.integers(0, 100))
def test_randbytes_gives_as_many_bytes_as_were_asked_for(state: int, n: int) -> None:
    assert len(SplitMix64(state).randbytes(n)) == n


def test_the_means_of_many_streams_scatter_as_those_of_even_chance_do() -> None:
    # One stream may be unlucky; the squared deviations of a hundred, in units of their variance, follow chi-squared
    # with 100 degrees of freedom, of which 54 to 162 is all but one case in ten thousand.
    draws = 2_000
    deviations = []
    for number in range(100):
        rng = stream(1, f"node-{number}", "core 1")
        drawn = [rng.random() for _ in range(draws)]
        assert 0 <= min(drawn) <= max(drawn) < 1
        deviations.append((sum(drawn) / draws - 0.5) ** 2 * 12 * draws)
    assert 54 < sum(deviations) < 162


def test_every_value_of_a_small_range_is_as_likely() -> None:
    rng = SplitMix64(2)
    counts = [0] * 6
    for _ in range(60_000):
        counts[rng.randrange(6)] += 1
    assert all(9_600 < count < 10_400 for count in counts)
    assert {rng.between(3, 5) for _ in range(100)} == {3, 4, 5}
    assert {rng.choice("ab") for _ in range(100)} == {"a", "b"}


def test_impossible_draws_are_refused() -> None:
    rng = SplitMix64(3)
    with pytest.raises(ValueError, match="no integer"):
        rng.randrange(0)
    with pytest.raises(ValueError, match="4 elements of 3"):
        rng.sample("abc", 4)


def test_a_stream_is_an_rng_and_has_no_dict() -> None:
    rng: Rng = SplitMix64(1)
    assert not hasattr(rng, "__dict__")

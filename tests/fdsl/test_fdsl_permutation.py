"""The order without memory: a bijection, as good as a random one, and cut and shuffled as often as one likes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_kakurenbo.fdsl.loading.permutation import Order, permute
from hf_kakurenbo.fdsl.loading.shards import count_shards, cut

keys = st.integers(0, 2**64 - 1).map(np.uint64)


@given(length=st.integers(1, 400), key=keys)
def test_a_permutation_is_one(length, key):
    assert sorted(permute(position, length, key) for position in range(length)) == list(range(length))


@given(length=st.integers(1, 2**62), key=keys, data=st.data())
def test_large_ones_stay_in_range_and_do_not_collide(length, key, data):
    positions = data.draw(st.sets(st.integers(0, length - 1), max_size=50))
    numbers = {permute(position, length, key) for position in positions}
    assert len(numbers) == len(positions)
    assert all(0 <= number < length for number in numbers)


def test_the_same_on_every_machine():
    assert [permute(position, 21_000_000, np.uint64(7)) for position in range(4)] == SEEN
    assert [permute(position, 10, np.uint64(7)) for position in range(10)] == SEEN_OF_TEN


SEEN = [13717741, 20691732, 16535370, 18644324]
SEEN_OF_TEN = [1, 0, 5, 2, 7, 8, 6, 4, 9, 3]


def chi_square(counts):
    """How far counts are from equal, in standard deviations of what chance would give."""
    expected = counts.sum() / counts.size
    freedom = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)


@pytest.mark.parametrize("length", [3, 5, 8, 21, 60])
def test_every_number_comes_first_and_every_pair_follows_as_often(length):
    trials = 400 * length
    first = np.zeros(length)
    pairs = np.zeros((length, length))
    for key in range(trials):
        one, two = (permute(position, length, np.uint64(key)) for position in (0, 1))
        first[one] += 1
        pairs[one, two] += 1
    assert abs(chi_square(first)) < 4
    assert abs(chi_square(pairs[~np.eye(length, dtype=bool)])) < 4


def test_neighbours_are_as_far_apart_as_by_chance():
    length = 21_000_000
    numbers = np.array([permute(position, length, np.uint64(1)) for position in range(20_000)])
    distances = np.abs(np.diff(numbers)) / length
    assert distances.mean() == pytest.approx(1 / 3, abs=0.005)
    assert np.corrcoef(numbers[:-1], numbers[1:])[0, 1] == pytest.approx(0, abs=0.02)
    assert abs(chi_square(np.histogram(numbers, 100, (0, length))[0])) < 4
    fixed = sum(permute(position, 1000, np.uint64(key)) == position for key in range(20) for position in range(1000))
    assert 5 <= fixed <= 40


@given(length=st.integers(1, 300), key=keys, other=keys, data=st.data())
def test_an_order_cut_and_shuffled_is_the_list_cut_and_shuffled(length, key, other, data):
    start, stop = sorted(data.draw(st.tuples(st.integers(0, length), st.integers(0, length))))
    order = Order.of(length).shuffled(key)
    section = order.section(start, stop)
    assert list(section) == list(order)[start:stop]
    assert sorted(section.shuffled(other)) == sorted(section)


def test_blocks_are_shuffled_among_themselves():
    order = Order.of(24).shuffled(np.uint64(3))
    blocks = order.blocks([range(2, 6), range(20, 24)])
    assert list(blocks) == [*list(order)[2:6], *list(order)[20:24]]
    assert sorted(blocks.shuffled(np.uint64(5))) == sorted(blocks)


def test_positions_outside_an_order():
    order = Order.of(5).section(1, 9)
    assert len(order) == 4
    assert list(Order.of(5).section(7, 9)) == []
    for position in (-1, 4):
        with pytest.raises(IndexError, match=f"position {position} is out of range: there are 4"):
            order[position]


@given(samples=st.integers(1, 10**7), at_most=st.integers(1, 3000))
def test_shards_are_equal_and_not_too_many(samples, at_most):
    count = count_shards(samples, at_most)
    assert 1 <= count <= min(at_most, samples)
    assert samples % count == 0


def test_how_many_shards():
    assert [count_shards(n) for n in (21_000_000, 1_000_000, 60_000, 1000, 1, 1031)] == [960, 320, 480, 1000, 1, 1]
    assert count_shards(60_000, 1) == 1
    with pytest.raises(ValueError, match="shards must be at least 1, got 0"):
        count_shards(10, 0)
    with pytest.raises(TypeError, match=r"shards must be an integer, got 2\.5"):
        count_shards(10, 2.5)


@given(length=st.integers(0, 500), count=st.integers(1, 40))
def test_shards_are_all(length, count):
    shards = cut(length, count)
    assert [position for shard in shards for position in shard] == list(range(length))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1

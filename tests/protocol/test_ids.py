"""Ids: form, order, partitions."""

from hypothesis import given
from hypothesis import strategies as st

from protocol import ids

moments = st.integers(0, 2**48 - 1)
entropy = st.binary(min_size=10, max_size=10)


@given(moments, entropy)
def test_an_id_is_a_prefix_and_26_digits(at: int, noise: bytes) -> None:
    made = ids.new_id("cnv", at, noise)
    assert made.startswith("cnv_")
    assert len(made) == 30
    assert set(made[4:]) <= set(ids.ALPHABET)


@given(moments, moments, entropy, entropy)
def test_ids_sort_by_birth(first: int, second: int, a: bytes, b: bytes) -> None:
    if first < second:
        assert ids.new_id("cnv", first, a) < ids.new_id("cnv", second, b)


def test_the_layout_is_the_ulid_s() -> None:
    # 1469918176385 ms is the ULID specification's own example: 01ARYZ6S41
    assert ids.new_id("x", 1469918176385, bytes(10)) == "x_01ARYZ6S41" + "0" * 16


def test_partitions_are_for_life() -> None:
    assert ids.partition_of("cnv_01ARYZ6S410000000000000000") == 252
    seen = {ids.partition_of(ids.new_id("cnv", 1, n.to_bytes(10, "big"))) for n in range(20_000)}
    assert seen == set(range(ids.PARTITIONS))

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.bitstream.wire import (
    VARINT_MAX,
    Reader,
    pack_streams,
    pack_varint,
    unpack_streams,
)
from codec.errors import BitstreamError

NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, VARINT_MAX))


@given(NUMBERS, st.binary(max_size=3))
def test_a_number_comes_back_and_nothing_behind_it_is_touched(value, behind):
    reader = Reader(pack_varint(value) + behind)
    assert reader.varint("number") == value
    assert reader.left == len(behind)


@given(st.binary(max_size=12))
def test_bytes_are_a_number_in_its_one_form_or_an_error(data):
    reader = Reader(data)
    try:
        value = reader.varint("number")
    except BitstreamError:
        return
    assert pack_varint(value) == data[: reader.at]


@pytest.mark.parametrize(
    ("value", "data"),
    [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (VARINT_MAX, "ffffffffffffffff7f")],
)
def test_numbers_have_the_bytes_of_the_specification(value, data):
    assert pack_varint(value) == bytes.fromhex(data)


@pytest.mark.parametrize("data", ["8000", "80808000", "ff00"])
def test_a_longer_form_of_a_number_is_refused(data):
    with pytest.raises(BitstreamError, match="shortest"):
        Reader(bytes.fromhex(data)).varint("number")


def test_a_run_of_continuation_bits_is_refused_after_nine_bytes():
    reader = Reader(b"\x80" * 1000)
    with pytest.raises(BitstreamError, match="above"):
        reader.varint("number")
    assert reader.at <= 10


@pytest.mark.parametrize("value", [-1, VARINT_MAX + 1])
def test_a_number_without_a_form_is_refused(value):
    with pytest.raises(BitstreamError, match="want 0"):
        pack_varint(value)


@given(NUMBERS, NUMBERS)
def test_a_number_is_read_exactly_up_to_the_highest_allowed(value, highest):
    reader = Reader(pack_varint(value))
    if value <= highest:
        assert reader.varint("number", highest) == value
    else:
        with pytest.raises(BitstreamError, match="above"):
            reader.varint("number", highest)


@given(st.binary(max_size=8), st.integers(0, 12))
def test_no_byte_outside_the_buffer_is_taken(data, size):
    reader = Reader(data)
    if size <= len(data):
        assert reader.take(size, "field") == data[:size]
    else:
        with pytest.raises(BitstreamError, match="field: want"):
            reader.take(size, "field")


def test_bytes_left_over_are_refused():
    reader = Reader(b"ab")
    reader.take(1, "field")
    with pytest.raises(BitstreamError, match="1 bytes are left over"):
        reader.finish("payload")


@given(st.dictionaries(st.text(max_size=3), st.binary(max_size=200), max_size=5))
def test_sub_streams_come_back_in_order(streams):
    again = unpack_streams(pack_streams(streams), tuple(streams))
    assert list(again.items()) == list(streams.items())


@given(st.binary(max_size=40), st.integers(0, 4))
def test_any_payload_is_sub_streams_in_one_form_or_an_error(payload, count):
    names = [str(number) for number in range(count)]
    try:
        streams = unpack_streams(payload, names)
    except BitstreamError:
        return
    assert list(streams) == names
    assert pack_streams(streams) == payload


def test_one_sub_stream_costs_nothing():
    assert pack_streams({"y": b"payload"}) == b"payload"

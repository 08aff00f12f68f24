import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.bitstream.header import Colour, Header, Kind, pack_header, unpack_header
from codec.errors import BitstreamError

SIDES = st.one_of(st.integers(1, 300), st.integers(1, 1 << 30))


@st.composite
def headers(draw):
    width, height = draw(SIDES), draw(SIDES)
    most = min((max(width, height) - 1) // 64, 1 << 10)
    return Header(
        family=draw(st.integers(1, (1 << 14) - 1)),
        model_id=draw(st.binary(min_size=8, max_size=8)),
        width=width,
        height=height,
        bit_depth=draw(st.integers(1, 16)),
        colour=draw(st.sampled_from(Colour)),
        quality=draw(st.integers(0, 100)),
        tile=64 * draw(st.integers(0, most)),
    )


GOOD = {
    "family": 1,
    "model_id": bytes(8),
    "kind": Kind.IMAGE,
    "width": 200,
    "height": 100,
    "bit_depth": 8,
    "colour": Colour.RGB,
    "quality": 60,
    "tile": 64,
}


@given(headers())
def test_a_header_comes_back(header):
    again = unpack_header(pack_header(header))
    assert again == header
    assert type(again.colour) is Colour


@given(st.binary(min_size=14, max_size=30))
def test_any_payload_is_a_header_in_its_one_form_or_an_error(payload):
    try:
        header = unpack_header(payload)
    except BitstreamError:
        return
    assert pack_header(header) == payload


@given(headers(), st.data())
def test_changed_bytes_are_a_header_in_its_one_form_or_an_error(header, data):
    payload = bytearray(pack_header(header))
    place = data.draw(st.integers(0, len(payload) - 1))
    payload[place] = data.draw(st.integers(0, 255))
    try:
        again = unpack_header(bytes(payload))
    except BitstreamError:
        return
    assert pack_header(again) == payload


@given(headers(), st.binary(min_size=1, max_size=3))
def test_bytes_behind_the_last_field_are_refused(header, tail):
    with pytest.raises(BitstreamError, match="left over"):
        unpack_header(pack_header(header) + tail)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("family", 0),
        ("family", 1 << 14),
        ("model_id", bytes(7)),
        ("kind", 0),
        ("kind", 4),
        ("width", 0),
        ("height", 0),
        ("height", (1 << 30) + 1),
        ("bit_depth", 0),
        ("bit_depth", 17),
        ("colour", 0),
        ("colour", 9),
        ("quality", -1),
        ("quality", 101),
        ("tile", 65),
        ("tile", (1 << 16) + 64),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(name, value):
    with pytest.raises(BitstreamError, match=name):
        Header(**{**GOOD, name: value})


def test_a_tile_that_holds_the_whole_image_is_written_as_no_tile():
    with pytest.raises(BitstreamError, match="longer side"):
        Header(**{**GOOD, "width": 128, "tile": 128})
    assert Header(**{**GOOD, "width": 129, "tile": 128}).tiles == 2


def test_the_header_has_the_bytes_of_the_specification():
    header = Header(**{**GOOD, "model_id": bytes.fromhex("0123456789abcdef")})
    # family, model id, kind, width 200, height 100, bit depth, colour, quality 60, tile 64
    assert pack_header(header).hex(" ") == "01 01 23 45 67 89 ab cd ef 01 c8 01 64 08 03 3c 01"


@given(
    st.integers(1, 700),
    st.integers(1, 700),
    st.integers(0, 5).map(lambda number: 64 * number),
)
def test_tiles_cover_every_pixel_once_in_raster_order(width, height, tile):
    if tile >= max(width, height):
        tile = 0
    header = Header(family=1, model_id=bytes(8), width=width, height=height, quality=0, tile=tile)
    boxes = [header.box(number) for number in range(header.tiles)]
    assert sum(box.width * box.height for box in boxes) == width * height
    assert [(box.top, box.left) for box in boxes] == sorted({(b.top, b.left) for b in boxes})
    for box in boxes:
        assert 1 <= box.width <= (tile or width)
        assert 1 <= box.height <= (tile or height)
        assert box.left + box.width <= width
        assert box.top + box.height <= height
        assert box.left % (tile or width) == box.top % (tile or height) == 0

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.bitstream import (
    Chunk,
    ChunkType,
    Container,
    Header,
    Kind,
    Limits,
    Scene,
    Unit,
    pack,
    pack_scene,
    pack_unit,
    pack_varint,
    scan,
    unpack,
    unpack_unit,
)
from codec.bitstream.header import pack_header
from codec.bitstream.scene import unpack_scene
from codec.errors import BitstreamError, LimitError
from tests.bitstream.test_container import assemble

HEADER = Header(family=6, model_id=bytes(range(8)), kind=Kind.SCENE, width=0, height=0, quality=60)
SCENE = Scene(rate=(30000, 1001), key_every=2, frames=3, gaussians=5, plan=b"plan")
CHUNKS = (
    Chunk(ChunkType.SCENE, pack_scene(SCENE)),
    Chunk(ChunkType.TEXT, b"key\0value\0"),
    *(Chunk(ChunkType.UNIT, content) for content in (b"first", b"second", b"third")),
)
HEAD = (ChunkType.HEADER, pack_header(HEADER))
INDEX = (ChunkType.INDEX, b"\1\1\1")
SAID = (ChunkType.SCENE, pack_scene(SCENE))
UNIT = (ChunkType.UNIT, b"u")
UNITS = st.builds(
    Unit,
    frame=st.integers(0, 1 << 30),
    is_key=st.booleans(),
    slices=st.lists(st.binary(max_size=200), min_size=1, max_size=200).map(tuple),
)


@st.composite
def scenes(draw):
    frames, seconds = (draw(st.integers(1, 2**31 - 1)) for _ in range(2))
    common = math.gcd(frames, seconds)
    return Scene(
        rate=(frames // common, seconds // common),
        key_every=draw(st.integers(1, 1 << 16)),
        frames=draw(st.integers(1, 1 << 30)),
        gaussians=draw(st.integers(0, 1 << 30)),
        plan=draw(st.binary(max_size=50)),
    )


@given(scenes())
def test_what_a_scene_says_comes_back(scene):
    assert unpack_scene(pack_scene(scene)) == scene


@pytest.mark.parametrize(
    "numbers",
    [
        (),
        (30, 1, 2, 3),
        (0, 1, 2, 3, 5),
        (30, 2, 2, 3, 5),  # not in lowest terms
        (30, 1, 0, 3, 5),
        (30, 1, (1 << 16) + 1, 3, 5),
        (30, 1, 2, 0, 5),
        (30, 1, 2, (1 << 30) + 1, 5),
        (30, 1, 2, 3, (1 << 30) + 1),
    ],
)
def test_numbers_out_of_range_are_refused(numbers):
    assert unpack_scene(b"".join(map(pack_varint, (30, 1, 2, 3, 5)))).plan == b""
    with pytest.raises(BitstreamError):
        unpack_scene(b"".join(map(pack_varint, numbers)))


def test_the_key_frame_before_is_the_last_multiple():
    scene = replace(SCENE, key_every=30, frames=100)
    assert [scene.key_before(frame) for frame in (0, 29, 30, 99)] == [0, 0, 30, 90]


@given(UNITS)
def test_a_unit_comes_back(unit):
    assert unpack_unit(pack_unit(unit), unit.frame, slices_max=len(unit.slices)) == unit


def test_a_unit_has_the_bytes_of_the_specification():
    # frame 31 and no key frame, 2 slices, then length and CRC-32 of each, then both
    unit = Unit(31, is_key=False, slices=(b"a", b"bc"))
    assert pack_unit(unit).hex(" ") == "3e 02 01 46 40 01 eb 02 7e 03 02 b3 61 62 63"


@given(UNITS)
def test_a_unit_of_another_frame_is_refused(unit):
    for other in (unit.frame + 1, max(0, unit.frame - 1) if unit.frame else 2):
        with pytest.raises(BitstreamError, match="frame"):
            unpack_unit(pack_unit(unit), other, slices_max=200)


@given(UNITS)
def test_more_slices_than_are_believed_are_refused(unit):
    with pytest.raises(BitstreamError, match="slices"):
        unpack_unit(pack_unit(unit), unit.frame, slices_max=len(unit.slices) - 1)
    with pytest.raises(BitstreamError):
        unpack_unit(pack_unit(replace(unit, slices=())), unit.frame, slices_max=200)


@given(UNITS, st.binary(min_size=1, max_size=3))
def test_bytes_behind_the_last_slice_are_refused(unit, tail):
    with pytest.raises(BitstreamError, match="left over"):
        unpack_unit(pack_unit(unit) + tail, unit.frame, slices_max=200)


@given(UNITS, st.data())
def test_damage_costs_the_slices_that_it_hits_or_all(unit, data):
    payload = bytearray(pack_unit(unit))
    place = data.draw(st.integers(0, len(payload) - 1))
    payload[place] ^= data.draw(st.integers(1, 255))
    try:
        found = unpack_unit(bytes(payload), unit.frame, slices_max=1 << 20)
    except BitstreamError:
        return
    assert found != unit
    kept = [pair for pair in zip(found.slices, unit.slices, strict=False) if pair[0] is not None]
    assert all(after == before for after, before in kept)
    behind = len(payload) - sum(map(len, unit.slices))
    if place >= behind:
        assert (found.is_key, found.slices.count(None)) == (unit.is_key, 1)


def test_a_slice_at_another_place_is_a_damaged_one():
    unit = Unit(4, is_key=True, slices=(b"a", b"b"))
    payload = pack_unit(unit)
    head, body = payload[:2], payload[2:-2]
    moved = head + body[5:] + body[:5] + b"ba"
    assert unpack_unit(moved, 4, slices_max=2).slices == (None, None)
    for word in (b"\x0a", b"\x08"):  # another frame, and no key frame
        again = word + payload[1:]
        assert unpack_unit(again, word[0] >> 1, slices_max=2).slices == (None, None)


def test_a_scene_comes_back():
    container = unpack(pack(HEADER, CHUNKS))
    assert container == Container(HEADER, CHUNKS)
    assert container.units == (b"first", b"second", b"third")
    assert container.scene == SCENE
    assert [chunk.name for chunk in scan(pack(HEADER, CHUNKS)).chunks] == [
        "header", "index", "scene", "text", "unit", "unit", "unit",
    ]  # fmt: skip


def test_a_scene_that_is_cut_gives_the_units_that_are_whole():
    stream = pack(HEADER, CHUNKS)
    start = scan(stream).chunks[-2].offset
    for size in range(len(stream)):
        with pytest.raises(BitstreamError):
            unpack(stream[:size])
        if size < start:
            continue
        container = unpack(stream[:size], partial=True)
        assert container.cut
        whole = container.units[:-1]
        assert whole == (b"first", b"second")[: len(whole)]
        assert len(whole) == 1 + (size >= scan(stream).chunks[-1].offset)


def test_a_damaged_unit_is_refused_unless_what_is_left_is_asked_for():
    stream = bytearray(pack(HEADER, CHUNKS))
    stream[stream.index(b"second")] ^= 1
    with pytest.raises(BitstreamError):
        unpack(bytes(stream))
    container = unpack(bytes(stream), partial=True)
    assert not container.cut
    assert container.units == (b"first", b"recond", b"third")
    stream[stream.index(b"plan")] ^= 1
    with pytest.raises(BitstreamError):
        unpack(bytes(stream), partial=True)


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD, UNIT, UNIT, UNIT),
        (HEAD, SAID, UNIT, UNIT, UNIT),  # no index
        (HEAD, INDEX, SAID, UNIT, UNIT),
        (HEAD, INDEX, SAID, UNIT, UNIT, UNIT, UNIT),
        (HEAD, (ChunkType.INDEX, b"\1\2\1"), SAID, UNIT, UNIT, UNIT),
        (HEAD, INDEX, SAID, (ChunkType.TILE, b""), UNIT, UNIT, UNIT),
        (HEAD, INDEX, SAID, (ChunkType.GROUP, b""), UNIT, UNIT, UNIT),
        (HEAD, INDEX, (ChunkType.ALPHA, b""), SAID, UNIT, UNIT, UNIT),
        (HEAD, INDEX, (ChunkType.VIDEO, b""), SAID, UNIT, UNIT, UNIT),
        (HEAD, (ChunkType.TILE, b"")),
        (HEAD, SAID),
    ],
)
def test_chunks_that_a_scene_cannot_have_are_refused(pieces):
    sound = assemble(HEAD, INDEX, SAID, UNIT, UNIT, UNIT)
    assert unpack(sound).units == (b"u", b"u", b"u")
    with pytest.raises(BitstreamError):
        unpack(assemble(*pieces))


def test_only_a_scene_has_no_size():
    for kind, width, height in (
        (Kind.SCENE, 1, 0),
        (Kind.SCENE, 0, 1),
        (Kind.SCENE, 3, 2),
        (Kind.VIDEO, 0, 0),
        (Kind.IMAGE, 0, 1),
    ):
        with pytest.raises(BitstreamError, match="width"):
            replace(HEADER, kind=kind, width=width, height=height)
    with pytest.raises(BitstreamError, match="tile"):
        replace(HEADER, tile=64)


@pytest.mark.parametrize("limits", [Limits(max_frames=2), Limits(max_gaussians=4)])
def test_a_scene_beyond_a_limit_is_refused(limits):
    stream = pack(HEADER, CHUNKS)
    assert unpack(stream, Limits(max_frames=3, max_gaussians=5)).scene.frames == 3
    with pytest.raises(LimitError):
        unpack(stream, limits)


def test_packing_wants_as_many_units_as_are_said():
    for chunks in (CHUNKS[:4], (*CHUNKS, CHUNKS[4]), CHUNKS[1:], (*CHUNKS, CHUNKS[0])):
        with pytest.raises(BitstreamError):
            pack(HEADER, chunks)

import math

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
    Video,
    pack,
    pack_varint,
    pack_video,
    scan,
    unpack,
)
from codec.bitstream.header import pack_header
from codec.bitstream.video import unpack_video
from codec.errors import BitstreamError, LimitError
from tests.bitstream.test_container import assemble

HEADER = Header(
    family=5, model_id=bytes(range(8)), kind=Kind.VIDEO, width=30, height=20, quality=60
)
VIDEO = Video(rate=(30000, 1001), matrix=1, full_range=False, groups=(3, 2))
CHUNKS = (
    Chunk(ChunkType.VIDEO, pack_video(VIDEO)),
    Chunk(ChunkType.AUDIO, b"audio"),
    Chunk(ChunkType.GROUP, b"first"),
    Chunk(ChunkType.GROUP, b"second"),
)
HEAD = (ChunkType.HEADER, pack_header(HEADER))
SAID = (ChunkType.VIDEO, pack_video(VIDEO))
INDEX = (ChunkType.INDEX, b"\1\1")
GROUP = (ChunkType.GROUP, b"g")


def number(most):
    return st.integers(1, most)


@st.composite
def videos(draw):
    frames, seconds = draw(number(2**31 - 1)), draw(number(2**31 - 1))
    common = math.gcd(frames, seconds)
    return Video(
        rate=(frames // common, seconds // common),
        matrix=draw(st.integers(0, 255)),
        full_range=draw(st.booleans()),
        groups=tuple(draw(st.lists(number(1 << 16), min_size=1, max_size=20))),
    )


@given(videos())
def test_what_a_video_says_comes_back(video):
    assert unpack_video(pack_video(video)) == video


@given(videos(), st.data())
def test_a_frame_is_in_the_group_that_it_is_counted_in(video, data):
    frame = data.draw(st.integers(0, video.frames - 1))
    group, number = video.group_of(frame)
    assert sum(video.groups[:group]) + number == frame
    assert 0 <= number < video.groups[group]


@pytest.mark.parametrize(
    "numbers",
    [
        (),
        (25, 1, 2),
        (0, 1, 2, 0, 5),
        (50, 2, 2, 0, 5),  # not in lowest terms
        (1 << 31, 1, 2, 0, 5),
        (25, 0, 2, 0, 5),
        (25, 1, 256, 0, 5),
        (25, 1, 2, 2, 5),
        (25, 1, 2, 0),
        (25, 1, 2, 0, 0),
        (25, 1, 2, 0, (1 << 16) + 1),
    ],
)
def test_numbers_out_of_range_are_refused(numbers):
    with pytest.raises(BitstreamError):
        unpack_video(b"".join(map(pack_varint, numbers)))


def test_a_video_comes_back():
    container = unpack(pack(HEADER, CHUNKS))
    assert container == Container(HEADER, CHUNKS)
    assert container.groups == (b"first", b"second")
    assert container.video == VIDEO


def test_a_video_with_one_group_has_no_index():
    chunks = (Chunk(ChunkType.VIDEO, pack_video(Video(rate=(1, 1), matrix=2, full_range=False,
              groups=(7,)))), CHUNKS[2])  # fmt: skip
    stream = pack(HEADER, chunks)
    assert [chunk.name for chunk in scan(stream).chunks] == ["header", "video", "group"]
    assert unpack(stream).groups == (b"first",)


def test_a_video_that_is_cut_gives_the_groups_that_are_whole():
    stream = pack(HEADER, CHUNKS)
    start = scan(stream).chunks[-1].offset
    for size in range(len(stream)):
        with pytest.raises(BitstreamError):
            unpack(stream[:size])
        if size < start:
            continue
        container = unpack(stream[:size], partial=True)
        assert container.cut
        assert container.groups[0] == b"first"
        assert b"second".startswith(container.groups[1])


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD, GROUP, GROUP),
        (HEAD, SAID, GROUP, GROUP),  # no index
        (HEAD, INDEX, SAID, GROUP),
        (HEAD, INDEX, SAID, GROUP, GROUP, GROUP),
        (HEAD, (ChunkType.INDEX, b"\1\2"), SAID, GROUP, GROUP),
        (HEAD, INDEX, SAID, (ChunkType.TILE, b""), GROUP, GROUP),
        (HEAD, INDEX, (ChunkType.ALPHA, b""), SAID, GROUP, GROUP),
        (HEAD, (ChunkType.TILE, b"")),
        (HEAD, SAID),
    ],
)
def test_chunks_that_a_video_cannot_have_are_refused(pieces):
    sound = assemble(HEAD, INDEX, SAID, GROUP, GROUP)
    assert unpack(sound).groups == (b"g", b"g")
    with pytest.raises(BitstreamError):
        unpack(assemble(*pieces))


def test_an_image_has_no_groups():
    image = (ChunkType.HEADER, pack_header(Header(family=1, model_id=bytes(8), width=3, height=2,
                                                  quality=1)))  # fmt: skip
    tile = (ChunkType.TILE, b"")
    assert unpack(assemble(image, tile)).groups == ()
    for pieces in ((image, SAID, tile), (image, SAID, GROUP), (image, tile, GROUP)):
        with pytest.raises(BitstreamError):
            unpack(assemble(*pieces))


def test_a_frame_has_no_tiles():
    with pytest.raises(BitstreamError):
        Header(family=5, model_id=bytes(8), kind=Kind.VIDEO, width=200, height=200, quality=1,
               tile=64)  # fmt: skip


@pytest.mark.parametrize(
    "limits", [Limits(max_frames=4), Limits(max_pixels=599), Limits(max_pixels_per_byte=20)]
)
def test_a_video_beyond_a_limit_is_refused(limits):
    stream = pack(HEADER, CHUNKS)
    assert unpack(stream).video.frames == 5
    with pytest.raises(LimitError):
        unpack(stream, limits)


def test_packing_wants_as_many_groups_as_are_said():
    for chunks in (CHUNKS[:3], (*CHUNKS, CHUNKS[3]), CHUNKS[1:], (*CHUNKS, CHUNKS[0])):
        with pytest.raises(BitstreamError):
            pack(HEADER, chunks)

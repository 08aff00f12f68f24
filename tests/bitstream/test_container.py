import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.bitstream import (
    SIGNATURE,
    Chunk,
    ChunkType,
    Container,
    Header,
    Limits,
    pack,
    pack_varint,
    scan,
    unpack,
)
from codec.bitstream.header import pack_header
from codec.errors import BitstreamError, CodecError, LimitError

ONE_TILE = Header(family=1, model_id=bytes(range(8)), width=3, height=2, quality=60)
TWO_TILES = Header(family=1, model_id=bytes(range(8)), width=100, height=2, quality=60, tile=64)
TILE = Chunk(ChunkType.TILE, b"tile")


def assemble(*pieces, version=1):
    """A file of (type, payload) as they are, right or wrong, each with its right checksum."""
    stream = SIGNATURE + bytes([version])
    for number, (kind, payload) in enumerate(pieces):
        body = bytes([kind]) + pack_varint(len(payload)) + payload
        checksum = zlib.crc32(bytes([version]) + pack_varint(number) + body)
        stream += body + checksum.to_bytes(4, "little")
    return stream


NOT_CHOSEN = (
    ChunkType.HEADER, ChunkType.INDEX, ChunkType.TILE, ChunkType.VIDEO, ChunkType.GROUP,
    ChunkType.SCENE, ChunkType.UNIT,
)  # fmt: skip
METADATA = [kind for kind in ChunkType if kind not in NOT_CHOSEN]


@st.composite
def files(draw):
    """A header of a small image and the chunks that go with it, in the order of the file."""
    width, height = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    header = Header(
        family=1,
        model_id=draw(st.binary(min_size=8, max_size=8)),
        width=width,
        height=height,
        quality=draw(st.integers(0, 100)),
        tile=64 * draw(st.integers(0, (max(width, height) - 1) // 64)),
    )
    kinds = sorted(draw(st.sets(st.sampled_from(METADATA))))
    kinds += [ChunkType.TILE] * header.tiles
    return header, tuple(Chunk(kind, draw(st.binary(max_size=30))) for kind in kinds)


HEAD = (ChunkType.HEADER, pack_header(ONE_TILE))
TWO = (ChunkType.HEADER, pack_header(TWO_TILES))


@given(files())
def test_a_file_comes_back(file):
    header, chunks = file
    assert unpack(pack(header, chunks)) == Container(header, chunks)


@given(files(), st.data())
def test_the_order_in_which_metadata_are_given_does_not_matter(file, data):
    header, chunks = file
    tiles = [chunk for chunk in chunks if chunk.type == ChunkType.TILE]
    others = [chunk for chunk in chunks if chunk.type != ChunkType.TILE]
    assert pack(header, tiles + data.draw(st.permutations(others))) == pack(header, chunks)


@given(files(), st.data())
def test_every_flipped_bit_is_refused(file, data):
    stream = bytearray(pack(*file))
    bit = data.draw(st.integers(0, 8 * len(stream) - 1))
    stream[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BitstreamError):
        unpack(bytes(stream))


def test_every_flipped_bit_of_one_file_is_refused():
    stream = pack(TWO_TILES, [Chunk(ChunkType.EXIF, b"exif"), TILE, TILE])
    for bit in range(8 * len(stream)):
        damaged = bytearray(stream)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError):
            unpack(bytes(damaged))


@given(files(), st.data())
def test_every_truncation_is_refused(file, data):
    stream = pack(*file)
    with pytest.raises(BitstreamError):
        unpack(stream[: data.draw(st.integers(0, len(stream) - 1))])


@given(files(), st.data())
def test_a_cut_file_gives_what_is_there_of_its_tiles_if_asked(file, data):
    stream = pack(*file)
    cut = stream[: data.draw(st.integers(0, len(stream) - 1))]
    whole = unpack(stream)
    assert unpack(stream, partial=True) == whole
    try:
        part = unpack(cut, partial=True)
    except BitstreamError:
        assert cut[:-1].count(bytes([ChunkType.TILE])) < 2 or len(cut) < len(stream) - 1
        return
    assert part.cut
    assert part.header == whole.header
    assert part.tiles[:-1] == whole.tiles[: len(part.tiles) - 1]
    assert whole.tiles[len(part.tiles) - 1].startswith(part.tiles[-1])


@given(files(), st.binary(min_size=1, max_size=20))
def test_bytes_behind_the_last_tile_are_refused(file, tail):
    with pytest.raises(BitstreamError):
        unpack(pack(*file) + tail)


@given(files(), st.data())
def test_a_burst_of_noise_is_refused(file, data):
    stream = bytearray(pack(*file))
    start = data.draw(st.integers(0, len(stream) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=min(4, len(stream) - start)))
    if bytes(stream[start : start + len(noise)]) != noise:
        stream[start : start + len(noise)] = noise
        with pytest.raises(BitstreamError):
            unpack(bytes(stream))


@given(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map((SIGNATURE + b"\1").__add__)))
def test_any_bytes_are_refused_or_a_file(noise):
    with pytest.raises(BitstreamError):
        unpack(noise)


CHECKED = st.lists(
    st.tuples(
        st.one_of(st.sampled_from(ChunkType), st.integers(0, 255)),
        st.one_of(st.binary(max_size=20), st.sampled_from([HEAD[1], TWO[1], b"\1\1"])),
    ),
    max_size=6,
)


@given(CHECKED, st.sampled_from([(), (HEAD,), (TWO,), (TWO, (ChunkType.INDEX, b"\1\1"))]))
def test_right_checksums_alone_make_no_file(pieces, start):
    stream = assemble(*start, *pieces)
    try:
        container = unpack(stream)
    except CodecError:
        return
    known = [piece for piece in pieces if piece[0] in list(ChunkType)]
    ours = assemble(*start, *known)
    assert pack(container.header, container.chunks) == ours


def test_a_file_has_the_bytes_of_the_specification():
    stream = pack(ONE_TILE, [Chunk(ChunkType.ICC, b"icc"), TILE])
    assert stream.hex(" ") == (
        "f5 4c 43 0a 01 "
        "02 10 01 00 01 02 03 04 05 06 07 01 03 02 08 03 3c 00 0f 48 9f 9d "
        "11 03 69 63 63 9a ee 1f 62 "
        "40 04 74 69 6c 65 6a 14 04 93"
    )


def test_the_example_of_the_specification_is_a_file():
    document = (Path(__file__).parents[2] / "docs" / "FORMAT.md").read_text(encoding="utf-8")
    example = document.split("## 10. An example")[1].split("```")[1]
    assert bytes.fromhex(example) == pack(ONE_TILE, [Chunk(ChunkType.ICC, b"icc"), TILE])


def test_a_tiled_file_has_the_bytes_of_the_specification():
    stream = pack(TWO_TILES, [TILE, Chunk(ChunkType.TILE, b"")])
    assert stream.hex(" ") == (
        "f5 4c 43 0a 01 "
        "02 10 01 00 01 02 03 04 05 06 07 01 64 02 08 03 3c 01 7b 47 69 ff "
        "04 02 04 00 8b dd 74 af "
        "40 04 74 69 6c 65 6a 14 04 93 "
        "40 00 25 49 c7 6b"
    )


def test_an_image_of_one_tile_costs_at_most_40_bytes():
    for side in (1, 127, 2048, 16383):
        header = Header(family=1, model_id=bytes(8), width=side, height=side, quality=100)
        payload = bytes(1 << 20)
        assert len(pack(header, [Chunk(ChunkType.TILE, payload)])) - len(payload) <= 38


def test_a_tile_is_found_by_the_index_alone():
    tiles = [b"first", b"", b"third" * 50, b"x"]
    header = Header(family=1, model_id=bytes(8), width=250, height=1, quality=60, tile=64)
    stream = pack(header, [Chunk(ChunkType.TILE, tile) for tile in tiles])
    index = scan(stream).chunks[1]
    assert index.type == ChunkType.INDEX
    at = index.offset + 2 + index.length + 4
    for tile in tiles:
        head = 1 + len(pack_varint(len(tile)))
        assert stream[at + head : at + head + len(tile)] == tile
        at += head + len(tile) + 4


def test_a_foreign_signature_and_a_later_version_are_named():
    with pytest.raises(BitstreamError, match="signature"):
        unpack(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(BitstreamError, match="format version 2: this package reads version 1"):
        unpack(assemble(HEAD, (ChunkType.TILE, b""), version=2))
    with pytest.raises(BitstreamError, match="format version"):
        unpack(SIGNATURE)


def test_the_first_chunk_is_the_header():
    with pytest.raises(BitstreamError, match="not a header"):
        unpack(assemble((ChunkType.ICC, b""), HEAD, (ChunkType.TILE, b"")))
    with pytest.raises(BitstreamError, match="not a header"):
        unpack(assemble())


def test_a_chunk_stands_once_and_in_order():
    for pieces in (
        [HEAD, HEAD],
        [HEAD, (ChunkType.ICC, b""), (ChunkType.ICC, b"")],
        [HEAD, (ChunkType.EXIF, b""), (ChunkType.ICC, b"")],
        [TWO, (ChunkType.TILE, b""), (ChunkType.ICC, b"")],
    ):
        with pytest.raises(BitstreamError, match="after type"):
            unpack(assemble(*pieces, (ChunkType.TILE, b"")))


def test_an_unknown_ancillary_chunk_is_skipped_and_an_unknown_critical_one_refused():
    ancillary, critical = 61, 62
    stream = assemble(HEAD, (ancillary, b"later"), (ChunkType.TILE, b"tile"))
    assert unpack(stream) == Container(ONE_TILE, (TILE,))
    with pytest.raises(BitstreamError, match="type 62 is critical and not known"):
        unpack(assemble(HEAD, (critical, b"later"), (ChunkType.TILE, b"tile")))


def test_nothing_stands_behind_the_last_tile():
    with pytest.raises(BitstreamError, match="at the end of the file"):
        unpack(assemble(HEAD, (ChunkType.TILE, b""), (65, b"unseen if cut")))


def test_a_tile_too_many_or_too_few_is_refused():
    for tiles in ([], [(ChunkType.TILE, b"")] * 2):
        with pytest.raises(BitstreamError, match="tiles: want 1"):
            unpack(assemble(HEAD, *tiles))


@pytest.mark.parametrize("index", [b"\4", b"\4\4\4", b"\4\5", b"\x84\x00\4"])
def test_an_index_that_does_not_fit_its_tiles_is_refused(index):
    tiles = [(ChunkType.TILE, b"tile")] * 2
    assert unpack(assemble(TWO, (ChunkType.INDEX, b"\4\4"), *tiles)).tiles == (b"tile", b"tile")
    with pytest.raises(BitstreamError, match="index"):
        unpack(assemble(TWO, (ChunkType.INDEX, index), *tiles))


def test_an_index_is_there_exactly_when_there_is_more_than_one_tile():
    with pytest.raises(BitstreamError, match="index"):
        unpack(assemble(TWO, *[(ChunkType.TILE, b"tile")] * 2))
    with pytest.raises(BitstreamError, match="index"):
        unpack(assemble(HEAD, (ChunkType.INDEX, b"\4"), (ChunkType.TILE, b"tile")))


def test_chunks_cannot_change_places_although_each_is_whole():
    stream = pack(TWO_TILES, [Chunk(ChunkType.TILE, b"1st."), Chunk(ChunkType.TILE, b"2nd.")])
    size = 1 + 1 + 4 + 4
    swapped = stream[: -2 * size] + stream[-size:] + stream[-2 * size : -size]
    with pytest.raises(BitstreamError, match="damaged"):
        unpack(swapped)


def test_pack_refuses_what_unpack_would_refuse():
    with pytest.raises(BitstreamError, match="tiles: want 1, got 0"):
        pack(ONE_TILE, [])
    for chunks in ([Chunk(ChunkType.ICC, b"")] * 2, [Chunk(ChunkType.INDEX, b"")]):
        with pytest.raises(BitstreamError, match=r"given twice|not for the caller"):
            pack(ONE_TILE, [*chunks, TILE])


def test_a_size_over_the_limit_is_refused_before_the_tiles_are_looked_at():
    header = replace(TWO_TILES, width=1 << 15, height=1 << 14, tile=1 << 11)
    stream = assemble((ChunkType.HEADER, pack_header(header)), (ChunkType.ICC, bytes(1 << 11)))
    with pytest.raises(LimitError, match=r"536870912 pixels; the limit is 268435456 \(--max-pix"):
        unpack(stream)
    with pytest.raises(BitstreamError, match="tiles: want 128"):
        unpack(stream, Limits(max_pixels=1 << 29))


def test_more_pixels_per_byte_than_the_limit_are_refused():
    header = replace(ONE_TILE, width=1 << 11, height=1 << 11)
    stream = pack(header, [TILE])
    assert unpack(stream).header == header
    with pytest.raises(LimitError, match="pixels per byte"):
        unpack(stream, Limits(max_pixels_per_byte=(1 << 22) // len(stream)))


def test_a_tile_over_the_limit_is_refused():
    header = replace(ONE_TILE, width=(1 << 22) + 1, height=1)
    stream = pack(header, [TILE])
    with pytest.raises(LimitError, match="a tile of 4194305 x 1 pixels; the limit is 4194304"):
        unpack(stream)
    assert unpack(stream, Limits(max_tile_pixels=(1 << 22) + 1)).header == header


def test_no_image_in_tiles_of_1024_is_over_a_default_limit_but_that_of_pixels():
    header = replace(TWO_TILES, width=1 << 14, height=1 << 14, tile=1 << 10)
    assert unpack(pack(header, [Chunk(ChunkType.TILE, b"")] * 256)).header == header


def test_more_tiles_than_the_file_can_hold_are_refused_before_they_are_counted():
    header = Header(family=1, model_id=bytes(8), width=1 << 14, height=1 << 14, quality=0, tile=64)
    index = (ChunkType.INDEX, bytes(1 << 12))
    with pytest.raises(BitstreamError, match="65536 tiles cannot be in"):
        unpack(assemble((ChunkType.HEADER, pack_header(header)), index))


def test_more_tiles_than_the_limit_are_refused_before_the_index_is_read():
    header = replace(TWO_TILES, width=128, height=128)
    stream = assemble((ChunkType.HEADER, pack_header(header)), (ChunkType.INDEX, b""), *[HEAD] * 4)
    with pytest.raises(LimitError, match="4 tiles; the limit is 3"):
        unpack(stream, Limits(max_tiles=3))
    with pytest.raises(BitstreamError, match="index"):
        unpack(stream)


def test_the_first_tile_too_many_is_refused_before_the_rest_is_looked_at():
    stream = assemble(HEAD, *[(ChunkType.TILE, b"")] * 2)
    with pytest.raises(BitstreamError, match="tiles: want 1, chunk 2 at offset"):
        unpack(stream + b"damaged")


def test_the_tiles_of_a_file_are_picked_out_once():
    container = unpack(pack(TWO_TILES, [TILE, TILE]))
    assert container.tiles is container.tiles


def test_a_scan_lists_no_more_chunks_than_a_file_with_that_header_has():
    tiles = [(ChunkType.TILE, b"")] * 1000
    assert len(scan(assemble(HEAD, *tiles)).chunks) == 257
    assert len(scan(assemble(*tiles)).chunks) == 256
    large = replace(TWO_TILES, width=1 << 30, height=1 << 30)
    report = scan(assemble((ChunkType.HEADER, pack_header(large)), *tiles))
    assert report.header == large
    assert isinstance(report.error, LimitError)
    assert len(report.chunks) == 256


@given(files())
def test_a_scan_of_a_whole_file_lists_every_byte(file):
    header, chunks = file
    stream = pack(header, chunks)
    report = scan(stream)
    assert report.error is None
    assert report.header == header
    assert all(chunk.crc_ok for chunk in report.chunks)
    at = 5
    for chunk in report.chunks:
        assert chunk.offset == at
        at += 1 + len(pack_varint(chunk.length)) + chunk.length + 4
    assert at == len(stream)
    given_types = [chunk.type for chunk in chunks]
    assert [chunk.type for chunk in report.chunks][-len(chunks) :] == given_types


@given(files(), st.data())
def test_a_scan_reports_damage_and_looks_on(file, data):
    stream = bytearray(pack(*file))
    chunks = scan(bytes(stream)).chunks
    hurt = data.draw(st.integers(0, len(chunks) - 1))
    stream[chunks[hurt].offset + 2 + chunks[hurt].length] ^= 1
    report = scan(bytes(stream))
    assert [chunk.crc_ok for chunk in report.chunks] == [n != hurt for n in range(len(chunks))]
    assert (report.header is None) == (hurt == 0)
    assert isinstance(report.error, BitstreamError)


@given(files(), st.data())
def test_a_scan_of_a_cut_or_noisy_file_ends_and_names_an_error(file, data):
    stream = pack(*file)
    cut = stream[: data.draw(st.integers(5, len(stream) - 1))]
    assert isinstance(scan(cut).error, BitstreamError)
    noisy = cut + data.draw(st.binary(max_size=8))
    if noisy != stream:
        assert isinstance(scan(noisy).error, BitstreamError)


def test_a_scan_names_chunks_for_people():
    report = scan(assemble(HEAD, (61, b""), (ChunkType.TILE, b"")))
    assert [chunk.name for chunk in report.chunks] == ["header", "unknown 61", "tile"]

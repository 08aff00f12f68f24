import logging
from dataclasses import replace

import numpy as np
import pytest

import codec
from benchmarks.fuzz import assemble, take_apart
from codec import moving as engine
from codec.api import DecodeOptions, EncodeOptions, encode_moments, open_scene
from codec.bitstream import (
    Chunk,
    ChunkType,
    Unit,
    pack,
    pack_scene,
    pack_unit,
    scan,
    unpack,
    unpack_unit,
)
from codec.errors import BitstreamError, LimitError, ModelError, UsageError
from codec.gaussians import Gaussians
from codec.io.splats import SplatFiles, write_splats
from codec.progress import Stopwatch
from tests.codec.toy import make_zoo
from tests.codec.toy_scene import SLICE_MAX, ToyScene, make_scene_zoo
from tests.scene_frames import assert_same, moving

FRAMES = moving(3 * SLICE_MAX - 1, 6, 1)
HEAD = 2 + 3 * 6  # of a unit with three slices of 128 to 16383 bytes each


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return make_scene_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def stream(zoo):
    """Key frames 0 and 3, of three slices."""
    return codec.encode_scene(FRAMES, key_every=3, zoo=zoo)


@pytest.fixture(scope="module")
def whole(zoo, stream):
    return list(codec.decode_scene(stream, zoo=zoo))


def unit_of(stream, frame):
    return unpack_unit(unpack(stream).units[frame], frame, slices_max=100)


def damaged(stream, frame, index):
    """With a bit turned in a slice, and no checksum made right."""
    start = unpack(stream).units[frame]
    content = unit_of(stream, frame).slices[index]
    at = stream.index(start) + start.index(content)
    return stream[:at] + bytes([stream[at] ^ 1]) + stream[at + 1 :]


def with_units(stream, units):
    """The same scene of other units."""
    container = unpack(stream)
    scene = replace(container.scene, frames=len(units))
    return pack(
        container.header,
        [Chunk(ChunkType.SCENE, pack_scene(scene))]
        + [Chunk(ChunkType.UNIT, unit) for unit in units],
    )


def slices_of(gaussians):
    return [gaussians.take(slice(at, at + SLICE_MAX)) for at in range(0, 192, SLICE_MAX)]


def test_units_are_key_frames_at_every_multiple(stream):
    assert [unit_of(stream, frame).is_key for frame in range(6)] == [
        True, False, False, True, False, False,
    ]  # fmt: skip


def test_a_frame_that_costs_less_as_a_key_frame_is_one(zoo):
    calm = FRAMES[0]
    other = Gaussians(*(-values for values in vars(calm).values()))
    frames = [calm, calm, other, other]
    stream = codec.encode_scene(frames, zoo=zoo)
    units = [unit_of(stream, frame) for frame in range(4)]
    assert [unit.is_key for unit in units] == [True, False, True, False]
    found = list(codec.decode_scene(stream, zoo=zoo))
    for gaussians, expected in zip(found, frames, strict=True):
        np.testing.assert_allclose(gaussians.means, expected.means, atol=2**-6)
    (last,) = codec.decode_scene(stream, frames=(3, 4), zoo=zoo)
    assert_same(last, found[3])


def test_frames_are_read_one_at_a_time(zoo, tmp_path, monkeypatch):
    for number, frame in enumerate(FRAMES):
        write_splats(tmp_path / f"{number}.ply", frame)
    alive, most = set(), []
    made = Gaussians.__post_init__

    class Kept:
        def __init__(self, one):
            self.key = id(one)
            alive.add(self.key)

        def __del__(self):
            alive.discard(self.key)

    def watched(self):
        made(self)
        object.__setattr__(self, "kept", Kept(self))
        most.append(len(alive))

    monkeypatch.setattr(Gaussians, "__post_init__", watched)
    codec.encode_scene(SplatFiles(tmp_path), zoo=zoo)
    assert len(most) >= 2 * len(FRAMES)
    assert max(most) <= 3


def test_a_folder_of_files_is_a_scene(zoo, tmp_path, stream):
    for number, frame in enumerate(FRAMES):
        write_splats(tmp_path / f"{number:02}.ply", frame)
    for source in (tmp_path, str(tmp_path / "%02d.ply")):
        assert codec.encode_scene(source, key_every=3, zoo=zoo) == stream
    (tmp_path / "03.ply").write_bytes(b"ply\n")
    with pytest.raises(codec.InputError, match=r"03\.ply"):
        codec.encode_scene(tmp_path, zoo=zoo)


def test_a_damaged_slice_is_refused_unless_what_is_left_is_asked_for(zoo, stream):
    broken = damaged(stream, 1, 1)
    with pytest.raises(BitstreamError):
        codec.decode_scene(broken, zoo=zoo)
    # With right checksums around the unit the slice's own is still wrong.
    units = list(unpack(broken, partial=True).units)
    forged = with_units(stream, units)
    found = codec.decode_scene(forged, zoo=zoo)
    assert len(next(found)) == len(FRAMES[0])
    with pytest.raises(BitstreamError, match="frame 1: slice 1 is damaged"):
        next(found)


def test_a_lost_slice_holds_until_the_next_key_frame(zoo, stream, whole, caplog):
    broken = damaged(stream, 1, 1)
    with caplog.at_level(logging.WARNING):
        found = list(codec.decode_scene(broken, allow_partial=True, zoo=zoo))
    assert [record.getMessage() for record in caplog.records] == [
        "frame 1: 1 of 3 slices are damaged and stay as they were until a key frame"
    ]
    for number in (0, 3, 4, 5):
        assert_same(found[number], whole[number])
    for number in (1, 2):
        kept, before, right = (slices_of(frames[n]) for frames, n in (
            (found, number), (whole, 0), (whole, number)))  # fmt: skip
        assert_same(kept[1], before[1])
        assert (before[1].means != right[1].means).any()
        for index in (0, 2):
            assert_same(kept[index], right[index])


def test_a_unit_whose_head_is_damaged_holds_all_slices(zoo, stream, whole):
    at = stream.index(unpack(stream).units[1])
    for place in range(HEAD):
        broken = bytearray(stream)
        broken[at + place] ^= 0x40
        found = list(codec.decode_scene(bytes(broken), allow_partial=True, zoo=zoo))
        kept = [slices_of(found[1])[index].means for index in range(3)]
        held = [slices_of(whole[0])[index].means for index in range(3)]
        right = [slices_of(whole[1])[index].means for index in range(3)]
        states = [
            (found == before).all() or (found == after).all()
            for found, before, after in zip(kept, held, right, strict=True)
        ]
        assert all(states)
        assert (found[1].means != whole[1].means).any()
        assert_same(found[3], whole[3])


def test_a_damaged_key_frame_is_an_error_where_it_is_needed(zoo, stream, whole):
    broken = damaged(stream, 3, 0)
    found = codec.decode_scene(broken, allow_partial=True, zoo=zoo)
    for expected in whole[:3]:
        assert_same(next(found), expected)
    with pytest.raises(BitstreamError, match="frame 3"):
        next(found)
    part = codec.decode_scene(broken, frames=(1, 3), allow_partial=True, zoo=zoo)
    assert len(list(part)) == 2
    with pytest.raises(BitstreamError, match="frame 3"):
        list(codec.decode_scene(broken, frames=(4, 5), allow_partial=True, zoo=zoo))


def test_a_unit_of_another_frame_holds_only_if_that_is_asked_for(zoo, stream, whole):
    units = list(unpack(stream).units)
    units[1], units[2] = units[2], units[1]
    moved = with_units(stream, units)
    with pytest.raises(BitstreamError, match="want frame 1, got 2"):
        list(codec.decode_scene(moved, zoo=zoo))
    found = list(codec.decode_scene(moved, allow_partial=True, zoo=zoo))
    for number, expected in ((1, 0), (2, 0), (3, 3), (5, 5)):
        assert_same(found[number], whole[expected])


@pytest.mark.parametrize(
    "change",
    [
        {"is_key": True, "slices": (b"",)},
        {"slices": ()},
        {"frame": 2},
    ],
)
def test_units_that_cannot_be_are_refused(zoo, stream, change):
    units = list(unpack(stream).units)
    units[1] = pack_unit(replace(unit_of(stream, 1), **change))
    with pytest.raises(BitstreamError):
        list(codec.decode_scene(with_units(stream, units), zoo=zoo))


def test_as_many_slices_as_before_are_wanted_of_a_later_frame(zoo, stream):
    units = list(unpack(stream).units)
    slices = unit_of(stream, 1).slices
    for some in (slices[:2], (*slices, slices[0])):
        units[1] = pack_unit(Unit(1, is_key=False, slices=some))
        with pytest.raises(BitstreamError, match="slices"):
            list(codec.decode_scene(with_units(stream, units), frames=(0, 2), zoo=zoo))


def test_a_key_frame_is_wanted_where_one_must_be(zoo, stream):
    units = list(unpack(stream).units)
    units[3] = pack_unit(replace(unit_of(stream, 3), is_key=False))
    for partial in (False, True):
        with pytest.raises(BitstreamError, match="frame 3: want a key frame"):
            list(codec.decode_scene(with_units(stream, units), allow_partial=partial, zoo=zoo))


def test_more_gaussians_than_are_said_are_refused(zoo, stream):
    container = unpack(stream)
    said = replace(container.scene, gaussians=container.scene.gaussians - 1)
    units = [Chunk(ChunkType.UNIT, unit) for unit in container.units]
    lying = pack(container.header, [Chunk(ChunkType.SCENE, pack_scene(said)), *units])
    with pytest.raises(BitstreamError, match="the most is said"):
        next(codec.decode_scene(lying, zoo=zoo))


def test_slices_and_gaussians_are_limited_before_any_is_decoded(zoo, stream, monkeypatch):
    monkeypatch.setattr(engine, "MAX_GAUSSIANS", 3 * SLICE_MAX)
    assert len(list(codec.decode_scene(stream, zoo=zoo))) == 6
    monkeypatch.setattr(engine, "MAX_GAUSSIANS", 3 * SLICE_MAX - 1)
    monkeypatch.setattr(ToyScene, "traverse", None)  # not reached
    with pytest.raises(BitstreamError, match="slices"):
        next(codec.decode_scene(stream, zoo=zoo))
    with pytest.raises(LimitError, match="Gaussians"):
        codec.encode_scene(FRAMES, zoo=zoo)


def test_what_cannot_be_asked_of_a_scene_is_refused(zoo, stream):
    for options in (
        EncodeOptions(model="gauss", zoo=zoo, target_bpp=1),
        EncodeOptions(model="gauss", zoo=zoo, dictionary="a.codecdict"),
    ):
        with pytest.raises(UsageError):
            encode_moments(FRAMES, options, watch=Stopwatch())
    with pytest.raises(UsageError, match="got generator"):
        codec.encode_scene((frame for frame in FRAMES), zoo=zoo)
    for key_every in (0, -1, (1 << 16) + 1):
        with pytest.raises(UsageError, match="key every"):
            codec.encode_scene(FRAMES, key_every=key_every, zoo=zoo)
    for rate in (0, -30, 1 << 31):
        with pytest.raises(UsageError, match="rate"):
            codec.encode_scene(FRAMES[:1], rate=rate, zoo=zoo)
    with pytest.raises(UsageError, match="for images"):
        open_scene(stream, DecodeOptions(dictionary="a", zoo=zoo), watch=Stopwatch())


def test_what_a_scene_takes_is_refused_by_other_media(tmp_path):
    image = np.zeros((16, 16, 3), np.uint8)
    zoo = make_zoo(tmp_path / "zoo")
    picture = codec.io.picture.Picture.from_array(image)
    options = EncodeOptions(model="toy", zoo=zoo, key_every=3)
    with pytest.raises(UsageError, match="scenes"):
        codec.api.encode_picture(picture, options, watch=Stopwatch())
    with pytest.raises(ModelError, match="no scenes"):
        codec.encode_scene(FRAMES, model="toy", zoo=zoo)


def test_the_rate_is_kept(zoo):
    said = unpack(codec.encode_scene(FRAMES[:1], rate=24, key_every=7, zoo=zoo)).scene
    assert (said.rate, said.key_every, said.frames) == ((24, 1), 7, 1)


def test_hostile_bytes_are_refused_or_a_scene(zoo, stream):
    numbers = np.random.default_rng(1)
    chunks = take_apart(stream)
    units = [at for at, chunk in enumerate(chunks) if chunk[0] == ChunkType.UNIT]
    came = set()
    for case in range(300):
        made = list(chunks)
        at = int(numbers.choice([1, 2, *units]))
        kind, content = made[at]
        noisy = bytearray(content)
        for _ in range(numbers.integers(1, 4)):
            noisy[numbers.integers(len(noisy))] = numbers.integers(256)
        made[at] = (
            kind,
            bytes(noisy[: numbers.integers(1, len(noisy) + 1)] if case % 3 else noisy),
        )
        lengths = [len(made[unit][1]) for unit in units]
        if at != 1:
            made[1] = (ChunkType.INDEX, b"".join(map(codec.bitstream.pack_varint, lengths)))
        try:
            found = list(codec.decode_scene(assemble(made), allow_partial=case % 2 == 0, zoo=zoo))
        except codec.CodecError as error:
            came.add(type(error).__name__)
        else:
            came.add("decoded")
            assert all(len(gaussians) <= 3 * SLICE_MAX for gaussians in found)
    assert came >= {"decoded", "BitstreamError"}


def test_verify_and_scan_know_the_chunks(stream):
    found = scan(stream)
    assert found.error is None
    assert [chunk.name for chunk in found.chunks] == ["header", "index", "scene", *["unit"] * 6]

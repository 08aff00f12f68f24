"""What every family of scenes promises. A new one only joins the registry."""

import hashlib
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import codec
from benchmarks.fuzz import assemble, take_apart
from codec import moving as engine
from codec.api import DecodeOptions, open_scene
from codec.bitstream import ChunkType, scan, unpack, unpack_streams, unpack_unit
from codec.entropy import BitCounter, Decoder, Encoder
from codec.errors import BitstreamError, CodecError, UsageError
from codec.gaussians import Gaussians
from codec.models.base import AbstractScene, AbstractSceneFamily, SliceState, Symbols
from codec.progress import Stopwatch
from codec.registry import FAMILIES
from codec.weights import SHIPPED, Entry, Zoo
from tests.codec.toy_scene import make_scene_zoo
from tests.scene_frames import assert_same, error, moving, nothing

VECTORS = Path(__file__).parent / "vectors" / "v1"
SCENE_FAMILIES = {family.name for family in FAMILIES if family.kind == "scene"}
ENTRIES = [entry for entry in SHIPPED.manifest() if entry.family in SCENE_FAMILIES]
COUNT, LENGTH = 300, 5


class Weights(NamedTuple):
    zoo: Zoo
    entry: Entry
    family: AbstractSceneFamily


@pytest.fixture(scope="module", params=[*ENTRIES, None], ids=lambda e: e.name if e else "toy")
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Those that ship, and a toy's."""
    zoo = SHIPPED if request.param else make_scene_zoo(tmp_path_factory.mktemp("zoo"))
    entry = request.param or zoo.manifest()[0]
    family = zoo.load(entry)
    assert isinstance(family, AbstractSceneFamily)
    return Weights(zoo, entry, family)


@pytest.fixture(scope="module", params=[0, 2], ids=["degree 0", "degree 2"])
def frames(request: pytest.FixtureRequest) -> list[Gaussians]:
    return moving(COUNT, LENGTH, request.param, turnover=0.05)


class Coded(NamedTuple):
    """Symbols, payloads and states of the slices of two frames, the first a key frame."""

    scene: AbstractScene
    symbols: list[list[Symbols]]
    payloads: list[list[dict[str, bytes]]]
    states: list[list[SliceState]]


@pytest.fixture(scope="module")
def coded(weights: Weights, frames: list[Gaussians]) -> Coded:
    scene = weights.family.scene(weights.family.plan(frames[:2], 60))
    found = Coded(scene, [scene.key(frames[0])], [], [])
    for number in range(2):
        if number:
            following = scene.follow(frames[1], found.states[0])
            assert following is not None
            found.symbols.append(following)
        befores = found.states[0] if number else [None] * len(found.symbols[0])
        found.payloads.append([])
        found.states.append([])
        for symbols, before in zip(found.symbols[number], befores, strict=True):
            encoder = Encoder()
            scene.traverse(encoder, symbols, before)
            found.payloads[number].append(encoder.finish())
            found.states[number].append(scene.after(symbols, before))
    return found


@pytest.fixture(scope="module")
def small(weights: Weights, frames: list[Gaussians]) -> bytes:
    """A stream with key frames 0, 2 and 4."""
    return encode(weights, frames, key_every=2)


def encode(weights: Weights, frames: list[Gaussians], **options: int) -> bytes:
    return codec.encode_scene(frames, model=weights.entry.name, zoo=weights.zoo, **options)  # type: ignore[arg-type]


def test_the_families_of_scenes_are_held_here() -> None:
    assert {entry.family for entry in ENTRIES} == SCENE_FAMILIES


def test_the_walk_gives_back_the_symbols_and_costs_what_was_counted(coded: Coded) -> None:
    for number in range(2):
        bits, size = 0.0, 0
        befores = coded.states[0] if number else [None] * len(coded.symbols[0])
        rows = zip(coded.symbols[number], coded.payloads[number], befores, strict=True)
        for symbols, payloads, before in rows:
            counter = BitCounter()
            coded.scene.traverse(counter, symbols, before)
            decoder = Decoder(payloads)
            found = coded.scene.traverse(decoder, None, before)
            decoder.finish()
            assert tuple(payloads) == coded.scene.streams
            assert list(found) == list(symbols)
            for key, expected in symbols.items():
                np.testing.assert_array_equal(expected, found[key])
                assert found[key].dtype == np.int32
            bits += counter.bits
            size += 8 * sum(map(len, payloads.values()))
        streams = len(coded.payloads[number]) * len(coded.scene.streams)
        assert bits - 1 <= size <= 1.002 * bits + 64 * streams


def test_decoding_an_encoded_scene_is_what_the_encoder_had(
    weights: Weights, frames: list[Gaussians], coded: Coded
) -> None:
    stream = encode(weights, frames[:2])
    found = list(codec.decode_scene(stream, zoo=weights.zoo))
    for number, gaussians in enumerate(found):
        assert_same(gaussians, coded.scene.gaussians(coded.states[number]))
        assert len(gaussians) == len(frames[number])
        assert gaussians.degree == frames[number].degree
        assert error(gaussians, frames[number]) < 0.05


def test_encoding_twice_gives_the_same_bytes(weights: Weights, frames: list[Gaussians]) -> None:
    assert encode(weights, frames) == encode(weights, frames)


def test_better_quality_costs_more_and_comes_closer(weights: Weights) -> None:
    frames = moving(COUNT, 2, 1)
    sizes, errors = [], []
    for quality in (20, 60, 100):
        stream = encode(weights, frames, quality=quality)
        sizes.append(len(stream))
        last = list(codec.decode_scene(stream, zoo=weights.zoo))[-1]
        errors.append(error(last, frames[-1]))
    assert sizes == sorted(set(sizes))
    assert errors == sorted(set(errors), reverse=True)


@pytest.mark.parametrize("quality", [0, 100])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_any_number_of_gaussians_comes_back(weights: Weights, degree: int, quality: int) -> None:
    for count in (1, 2, 97, weights.family.slice_max + 1):
        frames = moving(count, 2, degree)
        stream = encode(weights, frames, quality=quality)
        for found in codec.decode_scene(stream, zoo=weights.zoo):
            assert (len(found), found.degree) == (count, degree)


def test_a_frame_may_be_empty(weights: Weights) -> None:
    one = moving(3, 1, 1)[0]
    for frames in ([nothing(1)], [one, nothing(1)], [nothing(1), one], [one, nothing(1), one]):
        stream = encode(weights, frames)
        found = list(codec.decode_scene(stream, zoo=weights.zoo))
        assert [len(gaussians) for gaussians in found] == [len(frame) for frame in frames]


def test_frames_of_two_degrees_are_no_scene(weights: Weights) -> None:
    with pytest.raises(UsageError):
        encode(weights, [moving(5, 1, 0)[0], moving(5, 1, 1)[0]])
    with pytest.raises(UsageError):
        encode(weights, [])


def test_some_frames_are_those_of_the_whole(weights: Weights, small: bytes) -> None:
    whole = list(codec.decode_scene(small, zoo=weights.zoo))
    assert len(whole) == LENGTH
    for first, end in ((0, 1), (1, 4), (3, 4), (4, 5)):
        part = list(codec.decode_scene(small, frames=(first, end), zoo=weights.zoo))
        assert len(part) == end - first
        for found, expected in zip(part, whole[first:end], strict=True):
            assert_same(found, expected)
    for first, end in ((0, 6), (3, 3), (-1, 2)):
        with pytest.raises(UsageError, match="frames"):
            codec.decode_scene(small, frames=(first, end), zoo=weights.zoo)


def test_a_frame_is_decoded_from_the_key_frame_before_on(
    weights: Weights, frames: list[Gaussians], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, seen = encode(weights, frames, key_every=3), []

    def watched(payload: bytes, frame: int, **options: int) -> object:
        seen.append(frame)
        return unpack_unit(payload, frame, **options)

    monkeypatch.setattr(engine, "unpack_unit", watched)
    for frame, read in ((0, [0]), (2, [0, 1, 2]), (3, [3]), (4, [3, 4])):
        seen.clear()
        list(codec.decode_scene(stream, frames=(frame, frame + 1), zoo=weights.zoo))
        assert seen == read


def test_a_slice_needs_no_other_and_stays_as_it_was_without_its_payload(coded: Coded) -> None:
    for number in range(len(coded.symbols[0])):
        symbols = coded.scene.traverse(Decoder(coded.payloads[0][number]), None, None)
        state = coded.scene.after(symbols, None)
        for key, expected in coded.states[0][number].items():
            np.testing.assert_array_equal(state[key], expected)
        coded.scene.traverse(Decoder(coded.payloads[1][number]), None, state)
        mixed = [*coded.states[1][:number], state, *coded.states[1][number + 1 :]]
        assert len(coded.scene.gaussians(mixed)) > 0


def test_a_frame_that_slices_have_no_room_for_is_a_key_frame(weights: Weights) -> None:
    whole = moving(weights.family.slice_max + 100, 1)[0]
    frames = [nothing(0), whole, whole]
    stream = codec.encode_scene(frames, model=weights.entry.name, zoo=weights.zoo)
    found = list(codec.decode_scene(stream, zoo=weights.zoo))
    assert [len(gaussians) for gaussians in found] == [len(frame) for frame in frames]


def test_without_its_last_layers_a_scene_has_as_many_gaussians(
    weights: Weights, small: bytes, coded: Coded
) -> None:
    whole = list(codec.decode_scene(small, zoo=weights.zoo))
    for layers in range(coded.scene.layers + 1):
        found = list(codec.decode_scene(small, layers=layers, zoo=weights.zoo))
        for part, full in zip(found, whole, strict=True):
            np.testing.assert_array_equal(part.means, full.means)
            same = bool((part.sh == full.sh).all())
            assert same or layers < coded.scene.layers
    for layers in (-1, coded.scene.layers + 1):
        with pytest.raises(UsageError, match="layers"):
            list(codec.decode_scene(small, layers=layers, zoo=weights.zoo))


def test_a_stream_cut_at_any_byte_is_refused_or_gives_its_whole_frames(
    weights: Weights, small: bytes
) -> None:
    whole = list(codec.decode_scene(small, zoo=weights.zoo))
    places = [chunk.offset for chunk in scan(small).chunks if chunk.type == ChunkType.UNIT]
    step = max(1, len(small) // 60)
    for size in {*range(0, len(small), step), *places, len(small) - 1}:
        with pytest.raises(BitstreamError):
            codec.decode_scene(small[:size], zoo=weights.zoo)
        if size < places[1]:
            with pytest.raises(BitstreamError):
                list(codec.decode_scene(small[:size], allow_partial=True, zoo=weights.zoo))
            continue
        found = list(codec.decode_scene(small[:size], allow_partial=True, zoo=weights.zoo))
        assert len(found) == sum(place <= size for place in places) - 1
        for part, full in zip(found, whole, strict=False):
            assert_same(part, full)


def test_units_that_are_moved_or_repeated_are_refused(weights: Weights, small: bytes) -> None:
    chunks = take_apart(small)
    units = [at for at, chunk in enumerate(chunks) if chunk[0] == ChunkType.UNIT]
    for first, second in (*pairwise(units), (units[0], units[2])):
        moved, twice = list(chunks), list(chunks)
        moved[first], moved[second] = chunks[second], chunks[first]
        twice[second] = chunks[first]
        for made in (moved, twice):
            lengths = [len(made[at][1]) for at in units]
            index = b"".join(map(codec.bitstream.pack_varint, lengths))
            stream = assemble([(k, index if k == ChunkType.INDEX else p) for k, p in made])
            with pytest.raises(BitstreamError, match="frame"):
                list(codec.decode_scene(stream, zoo=weights.zoo))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damage_behind_the_checksum_gives_gaussians_or_a_codec_error(
    coded: Coded, draw: st.DataObject
) -> None:
    number = draw.draw(st.integers(0, 1))
    at = draw.draw(st.integers(0, len(coded.payloads[0]) - 1))
    streams = {key: bytearray(value) for key, value in coded.payloads[number][at].items()}
    victim = streams[draw.draw(st.sampled_from([key for key in streams if streams[key]]))]
    for _ in range(draw.draw(st.integers(1, 4))):
        victim[draw.draw(st.integers(0, len(victim) - 1))] ^= draw.draw(st.integers(1, 255))
    before = coded.states[0][at] if number else None
    decoder = Decoder({key: bytes(value) for key, value in streams.items()})
    try:
        symbols = coded.scene.traverse(decoder, None, before)
        decoder.finish()
        state = coded.scene.after(symbols, before)
    except CodecError:
        return
    assert len(coded.scene.gaussians([state])) >= 0


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_plan_is_a_scene_or_a_codec_error(
    weights: Weights, frames: list[Gaussians], draw: st.DataObject
) -> None:
    plan = bytearray(weights.family.plan(frames, 60))
    if draw.draw(st.booleans()):
        plan[draw.draw(st.integers(0, len(plan) - 1))] ^= draw.draw(st.integers(1, 255))
    else:
        plan = bytearray(draw.draw(st.binary(max_size=2 * len(plan))))
    try:
        scene = weights.family.scene(bytes(plan))
    except CodecError:
        return
    assert scene.degree in range(4)
    assert len(scene.streams) > scene.layers >= 0


def test_no_other_medium_is_taken_for_a_scene(weights: Weights, small: bytes) -> None:
    image = (VECTORS / "iscs" / "photo.bin").read_bytes()
    with pytest.raises(UsageError, match="scene"):
        codec.decode(small, zoo=weights.zoo)
    with pytest.raises(UsageError, match="scene"):
        codec.decode_video(small, zoo=weights.zoo)
    with pytest.raises(UsageError, match="image"):
        codec.decode_scene(image)
    with pytest.raises(UsageError, match="encode_scene"):
        codec.encode(np.zeros((4, 4), np.uint8), model=weights.entry.name, zoo=weights.zoo)
    options = DecodeOptions(region=(0, 0, 1, 1), zoo=weights.zoo)
    with pytest.raises(UsageError, match="for images"):
        open_scene(small, options, watch=Stopwatch())


def test_info_counts_frames_and_gaussians(
    weights: Weights, small: bytes, frames: list[Gaussians]
) -> None:
    info = codec.info(small, zoo=weights.zoo)
    most = max(map(len, frames))
    assert (info["kind"], info["frames"], info["gaussians"]) == ("scene", LENGTH, most)
    assert info["bits_per_gaussian"] == pytest.approx(8 * len(small) / (LENGTH * most))
    assert not {"width", "height", "bpp"} & set(info)
    assert [chunk["type"] for chunk in info["chunks"]] == [
        "header", "index", "scene", *["unit"] * LENGTH,
    ]  # fmt: skip
    assert codec.info(small[:-1], zoo=weights.zoo)["frames"] == 0


SHIPPED_ONLY = pytest.mark.parametrize(
    "weights", ENTRIES, ids=lambda entry: entry.name, indirect=True
)


@SHIPPED_ONLY
def test_a_stream_decodes_in_a_fresh_process_with_any_number_of_threads(
    weights: Weights, small: bytes, tmp_path: Path
) -> None:
    stream = tmp_path / "stream.bin"
    stream.write_bytes(small)
    found = []
    for threads in (1, 2):
        command = [sys.executable, "-m", "codec", "decode", str(stream), f"{tmp_path}/%d.ply"]
        command += ["--json", "--force", "--threads", str(threads)]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        found.append(json.loads(done.stdout)["symbols_sha256"])
    assert found[0] == found[1]


AUDIT = """
import sys
from pathlib import Path

import codec

stream = Path(sys.argv[1]).read_bytes()
list(codec.decode_scene(stream))  # whatever is imported late is imported now
watched = "ctypes exec import open os pickle shutil socket subprocess".split()
seen = []
sys.addaudithook(lambda *what: seen.append(what) if what[0].split(".")[0] in watched else None)
list(codec.decode_scene(stream))
codec.info(stream)
print(*{Path(str(args[0])).name if event == "open" else event for event, args in seen})
"""


@SHIPPED_ONLY
def test_decoding_opens_the_list_of_weights_and_nothing_else(
    weights: Weights, small: bytes, tmp_path: Path
) -> None:
    stream = tmp_path / "stream.bin"
    stream.write_bytes(small)
    command = [sys.executable, "-c", AUDIT, str(stream)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["manifest.json"]


@SHIPPED_ONLY
def test_loading_a_family_imports_no_other(weights: Weights) -> None:
    code = (
        "import sys, codec.moving; from codec.weights import SHIPPED; "
        "codec.moving.find_scene_model(sys.argv[1], SHIPPED); print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, weights.entry.name]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    modules = done.stdout.split()
    for family in FAMILIES:
        loaded = any(module.startswith(f"codec.models.{family.name}") for module in modules)
        assert loaded == (family.name == weights.entry.family)


GOLDEN = {
    "births": (lambda: moving(500, 5, 0, turnover=0.2), 60, 3),
    "harmonics": (lambda: moving(200, 3, 2), 80, 30),
    "moves": (lambda: moving(400, 6), 60, 30),
    "empty": (lambda: [nothing(1), *moving(3, 1, 1), nothing(1)], 0, 1),
}


@pytest.mark.parametrize("vector", GOLDEN)
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_golden_streams_decode_to_the_symbols_they_were_made_of(
    entry: Entry, vector: str, request: pytest.FixtureRequest
) -> None:
    name = entry.name.partition("/")[2]
    path = VECTORS / entry.family / f"{name}-{vector}.bin"
    if request.config.getoption("--write-golden"):
        frames, quality, key_every = GOLDEN[vector]
        stream = codec.encode_scene(
            frames(), quality=quality, key_every=key_every, model=entry.name
        )
        write_golden(path, stream)
        pytest.skip(f"wrote {path}; review it")
    stream = path.read_bytes()
    expected = json.loads(path.with_suffix(".json").read_text())
    assert expected["stream_sha256"] == hashlib.sha256(stream).hexdigest()
    opened = open_scene(stream, DecodeOptions(), watch=Stopwatch())
    found = list(opened.frames)
    assert expected["symbols_sha256"] == opened.digest.hexdigest()
    reference = np.load(path.with_suffix(".npz"))
    # Gaussians may differ by rounding between machines, symbols never.
    for number, gaussians in enumerate(found):
        for key, values in numbered(number, gaussians).items():
            np.testing.assert_allclose(values, reference[key], rtol=1e-5, atol=1e-5)
    assert len(reference) == 5 * len(found)


def numbered(number: int, gaussians: Gaussians) -> dict[str, np.ndarray]:
    return {f"{number}.{key}": values for key, values in vars(gaussians).items()}


def write_golden(path: Path, stream: bytes) -> None:
    """A stream, the hash of its symbols, and what it decodes to here; none is written twice."""
    assert not path.exists(), f"{path} is there already, and vectors never change"
    opened = open_scene(stream, DecodeOptions(), watch=Stopwatch())
    arrays = {}
    for number, gaussians in enumerate(opened.frames):
        arrays |= numbered(number, gaussians)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stream)
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    hashes = {
        "stream_sha256": hashlib.sha256(stream).hexdigest(),
        "symbols_sha256": opened.digest.hexdigest(),
    }
    path.with_suffix(".json").write_text(json.dumps(hashes, indent=2) + "\n")


def test_the_units_of_a_stream_are_those_of_the_contract(
    weights: Weights, small: bytes, coded: Coded
) -> None:
    container = unpack(small)
    slices = unpack_unit(container.units[0], 0, slices_max=1 << 20).slices
    assert len(slices) == len(coded.symbols[0])
    scene = weights.family.scene(container.scene.plan)
    for payload in slices:
        assert payload is not None
        decoder = Decoder(unpack_streams(payload, scene.streams))
        scene.traverse(decoder, None, None)
        decoder.finish()

"""What every family of videos promises. A new one only joins the registry."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import codec
from codec.api import DecodeOptions, open_video
from codec.bitstream import scan, unpack
from codec.entropy import BitCounter, Decoder, Encoder
from codec.errors import BitstreamError, CodecError, UsageError
from codec.models.base import AbstractVideoFamily, GroupGeometry, Symbols
from codec.progress import Stopwatch
from codec.registry import FAMILIES
from codec.weights import SHIPPED, Entry
from tests.video_clips import moving

VECTORS = Path(__file__).parent / "vectors" / "v1"
VIDEO_FAMILIES = {family.name for family in FAMILIES if family.kind == "video"}
ENTRIES = [entry for entry in SHIPPED.manifest() if entry.family in VIDEO_FAMILIES]
GEOMETRY = GroupGeometry(40, 56, 5)
BITS = 40_000.0


@pytest.fixture(scope="module", params=ENTRIES, ids=lambda entry: entry.name)
def entry(request: pytest.FixtureRequest) -> Entry:
    found: Entry = request.param
    return found


@pytest.fixture(scope="module")
def family(entry: Entry) -> AbstractVideoFamily:
    found = SHIPPED.load(entry)
    assert isinstance(found, AbstractVideoFamily)
    return found


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return moving(GEOMETRY.frames, GEOMETRY.height, GEOMETRY.width)


@pytest.fixture(scope="module")
def symbols(family: AbstractVideoFamily, clip: np.ndarray) -> Symbols:
    return family.analyse_group(tensor(clip), GEOMETRY, BITS)


@pytest.fixture(scope="module")
def payloads(family: AbstractVideoFamily, symbols: Symbols) -> dict[str, bytes]:
    encoder = Encoder()
    family.traverse(encoder, symbols, GEOMETRY)
    return encoder.finish()


@pytest.fixture(scope="module")
def small(entry: Entry, clip: np.ndarray) -> bytes:
    """A stream of two groups: the second scene is another picture."""
    return codec.encode(np.concatenate([clip[:3], 255 - clip[3:]]), quality=80, model=entry.name)


def tensor(clip: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(clip).permute(0, 3, 1, 2).contiguous()


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def test_the_families_of_videos_are_held_here() -> None:
    assert {entry.family for entry in ENTRIES} == VIDEO_FAMILIES


def test_the_walk_gives_back_the_symbols_and_costs_what_was_counted(
    family: AbstractVideoFamily, symbols: Symbols, payloads: dict[str, bytes]
) -> None:
    counter = BitCounter()
    family.traverse(counter, symbols, GEOMETRY)
    decoder = Decoder(payloads)
    found = family.traverse(decoder, None, GEOMETRY)
    decoder.finish()
    assert list(symbols) == list(found) == list(family.streams)
    for key, expected in symbols.items():
        np.testing.assert_array_equal(expected, found[key])
        assert found[key].dtype == np.int32
    size = 8 * sum(map(len, payloads.values()))
    assert counter.bits - 1 <= size <= 1.002 * counter.bits + 64 * len(payloads)
    assert 0.5 * BITS < size <= BITS


def test_decoding_an_encoded_video_is_synthesis_of_its_analysis(
    entry: Entry, family: AbstractVideoFamily, clip: np.ndarray
) -> None:
    stream = codec.encode(clip, quality=90, model=entry.name)
    (payload,) = unpack(stream).groups
    decoded = np.stack(list(codec.decode_video(stream)))
    found = family.traverse(
        Decoder(codec.bitstream.unpack_streams(payload, family.streams)), None, GEOMETRY
    )
    drawn = torch.cat(list(family.synthesise_frames(found, GEOMETRY, range(5))))
    expected = (drawn.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(expected, decoded)
    assert decoded.shape == clip.shape


def test_encoding_twice_gives_the_same_bytes(entry: Entry, clip: np.ndarray) -> None:
    first, second = (codec.encode(clip[:2], model=entry.name) for _ in range(2))
    assert first == second


def test_better_quality_costs_more_and_comes_closer(entry: Entry) -> None:
    clip = moving(12, 96, 128)
    sizes, decibels = [], []
    for quality in (75, 88, 100):
        stream = codec.encode(clip, quality=quality, model=entry.name)
        sizes.append(len(stream))
        decibels.append(psnr(clip, np.stack(list(codec.decode_video(stream)))))
    assert sizes == sorted(set(sizes))
    assert decibels == sorted(set(decibels))
    assert decibels[-1] > 20


def test_a_target_is_kept_and_nearly_used(entry: Entry, clip: np.ndarray) -> None:
    for target in (3.0, 8.0):
        bpp = 8 * len(codec.encode(clip, target_bpp=target, model=entry.name)) / clip[..., 0].size
        assert 0.5 * target < bpp <= target
    assert len(codec.encode(clip, target_size=4000, model=entry.name)) <= 4000
    with pytest.raises(UsageError, match="smallest"):
        codec.encode(clip, target_bpp=0.01, model=entry.name)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 37), (41, 1), (17, 16), (33, 65)])
def test_any_size_comes_back(entry: Entry, height: int, width: int) -> None:
    clip = moving(2, height, width)
    decoded = np.stack(list(codec.decode_video(codec.encode(clip, model=entry.name))))
    assert clip.shape == decoded.shape
    assert np.abs(decoded.astype(float) - clip).mean() < 60


def test_some_frames_are_those_of_the_whole(small: bytes) -> None:
    whole = list(codec.decode_video(small))
    for first, end in ((0, 1), (2, 4), (4, 5)):
        part = list(codec.decode_video(small, frames=(first, end)))
        np.testing.assert_array_equal(np.stack(part), np.stack(whole[first:end]))
    for first, end in ((0, 6), (3, 3), (-1, 2)):
        with pytest.raises(UsageError, match="frames"):
            codec.decode_video(small, frames=(first, end))


def test_frames_of_one_group_decode_that_group_alone(
    small: bytes, family: AbstractVideoFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    walk = type(family).traverse

    def watched(self, coder, symbols, geometry):  # type: ignore[no-untyped-def]
        seen.append(geometry.frames)
        return walk(self, coder, symbols, geometry)

    monkeypatch.setattr(type(family), "traverse", watched)
    assert len(list(codec.decode_video(small, frames=(3, 5)))) == 2
    assert seen == [2]
    assert len(list(codec.decode_video(small))) == 5
    assert seen == [2, 3, 2]


def test_a_stream_cut_at_any_byte_is_refused_or_gives_its_whole_groups(small: bytes) -> None:
    whole = np.stack(list(codec.decode_video(small)))
    last = scan(small).chunks[-1].offset
    for size in range(0, len(small), 7):
        with pytest.raises(BitstreamError):
            codec.decode_video(small[:size])
    with pytest.raises(BitstreamError):
        codec.decode_video(small[: last - 1], allow_partial=True)
    for size in (last, last + 1, len(small) - 1):
        part = np.stack(list(codec.decode_video(small[:size], allow_partial=True)))
        np.testing.assert_array_equal(whole[:3], part)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damage_behind_the_checksum_gives_frames_or_a_codec_error(
    family: AbstractVideoFamily, payloads: dict[str, bytes], draw: st.DataObject
) -> None:
    streams = {key: bytearray(value) for key, value in payloads.items()}
    victim = streams[draw.draw(st.sampled_from(sorted(streams)))]
    for _ in range(draw.draw(st.integers(1, 4))):
        victim[draw.draw(st.integers(0, len(victim) - 1))] ^= draw.draw(st.integers(1, 255))
    decoder = Decoder({key: bytes(value) for key, value in streams.items()})
    try:
        symbols = family.traverse(decoder, None, GEOMETRY)
        decoder.finish()
    except CodecError:
        return
    (frame,) = family.synthesise_frames(symbols, GEOMETRY, [0])
    assert frame.shape == (1, 3, GEOMETRY.height, GEOMETRY.width)


def test_a_stream_decodes_in_a_fresh_process_with_any_number_of_threads(
    small: bytes, tmp_path: Path
) -> None:
    stream = tmp_path / "stream.bin"
    stream.write_bytes(small)
    found = []
    for threads in (1, 2):
        command = [sys.executable, "-m", "codec", "decode", str(stream), str(tmp_path / "x.y4m")]
        command += ["--json", "--force", "--threads", str(threads)]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        found.append(json.loads(done.stdout)["symbols_sha256"])
    assert found[0] == found[1]


def test_an_image_and_a_video_are_not_taken_for_each_other(small: bytes) -> None:
    image = (VECTORS / "iscs" / "photo.bin").read_bytes()
    with pytest.raises(UsageError, match="video"):
        codec.decode(small)
    with pytest.raises(UsageError, match="image"):
        codec.decode_video(image)
    with pytest.raises(UsageError, match="frames"):
        codec.api.decode_stream(image, DecodeOptions(frames=(0, 1)), watch=Stopwatch())
    for options in (DecodeOptions(layers=1), DecodeOptions(region=(0, 0, 1, 1))):
        with pytest.raises(UsageError, match="for images"):
            open_video(small, options, watch=Stopwatch())


def test_info_counts_the_frames(small: bytes) -> None:
    info = codec.info(small)
    assert (info["kind"], info["frames"], info["width"], info["height"]) == ("video", 5, 56, 40)
    assert info["bpp"] == pytest.approx(8 * len(small) / (5 * 40 * 56))
    assert [chunk["type"] for chunk in info["chunks"]] == [
        "header", "index", "video", "group", "group",
    ]  # fmt: skip
    assert codec.info(small[:-1])["frames"] == 0


AUDIT = """
import sys
from pathlib import Path

import codec

stream = Path(sys.argv[1]).read_bytes()
list(codec.decode_video(stream))  # whatever is imported late is imported now
watched = "ctypes exec import open os pickle shutil socket subprocess".split()
seen = []
sys.addaudithook(lambda *what: seen.append(what) if what[0].split(".")[0] in watched else None)
list(codec.decode_video(stream))
codec.info(stream)
print(*{Path(str(args[0])).name if event == "open" else event for event, args in seen})
"""


def test_decoding_opens_the_list_of_weights_and_nothing_else(small: bytes, tmp_path: Path) -> None:
    stream = tmp_path / "stream.bin"
    stream.write_bytes(small)
    command = [sys.executable, "-c", AUDIT, str(stream)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["manifest.json"]


def test_loading_a_family_imports_no_other(entry: Entry) -> None:
    code = (
        "import sys, codec.video; from codec.weights import SHIPPED; "
        "codec.video.find_video_model(sys.argv[1], SHIPPED, 'cpu'); print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, entry.name]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    modules = done.stdout.split()
    for family in FAMILIES:
        loaded = any(module.startswith(f"codec.models.{family.name}") for module in modules)
        assert loaded == (family.name == entry.family)


GOLDEN = {
    "two-groups": (lambda: np.concatenate([moving(4, 48, 64), 255 - moving(3, 48, 64)]), 85),
    "pixel": (lambda: moving(1, 1, 1), 0),
    "odd": (lambda: moving(3, 29, 83), 95),
}


@pytest.mark.parametrize("vector", GOLDEN)
def test_golden_streams_decode_to_the_symbols_they_were_made_of(
    entry: Entry, vector: str, request: pytest.FixtureRequest
) -> None:
    name = entry.name.partition("/")[2]
    path = VECTORS / entry.family / f"{name}-{vector}.bin"
    if request.config.getoption("--write-golden"):
        clip, quality = GOLDEN[vector]
        write_golden(path, codec.encode(clip(), quality=quality, model=entry.name))
        pytest.skip(f"wrote {path}; review it")
    stream = path.read_bytes()
    expected = json.loads(path.with_suffix(".json").read_text())
    assert expected["stream_sha256"] == hashlib.sha256(stream).hexdigest()
    opened = open_video(stream, DecodeOptions(), watch=Stopwatch())
    found = np.stack(list(opened.frames))
    assert expected["symbols_sha256"] == opened.digest.hexdigest()
    reference = np.load(path.with_suffix(".npz"))["frames"]
    # Pixels may differ by rounding between machines, symbols never.
    assert np.abs(found.astype(int) - reference).max() <= 1


def write_golden(path: Path, stream: bytes) -> None:
    """A stream, the hash of its symbols, and what it decodes to here; none is written twice."""
    assert not path.exists(), f"{path} is there already, and vectors never change"
    opened = open_video(stream, DecodeOptions(), watch=Stopwatch())
    frames = np.stack(list(opened.frames))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stream)
    np.savez_compressed(path.with_suffix(".npz"), frames=frames)
    hashes = {
        "stream_sha256": hashlib.sha256(stream).hexdigest(),
        "symbols_sha256": opened.digest.hexdigest(),
    }
    path.with_suffix(".json").write_text(json.dumps(hashes, indent=2) + "\n")

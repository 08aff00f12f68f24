"""Hostile streams: those that were kept, and new ones. `benchmarks/fuzz.py` makes many more."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import codec
from benchmarks import fuzz, fuzz_scene, fuzz_targets, fuzz_video
from codec.bitstream import scan, unpack
from codec.errors import BitstreamError
from codec.registry import FAMILIES, family_by_name
from tests.codec.toy_scene import make_scene_zoo
from tests.scene_frames import moving

ROOT = Path(__file__).parents[1]
CORPUS = sorted((ROOT / "tests/corpus").glob("*.bin"))


@pytest.fixture(scope="module", params=["iscs/small", "compressai/tiny"])
def seeds(request):
    return fuzz.seeds(request.param)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_stream_of_the_corpus_is_a_picture_or_refused(path):
    stream = path.read_bytes()
    for way in range(4):
        fuzz.judge(stream, way)


def test_the_corpus_leaves_no_array_of_the_kernels(tmp_path):
    code = (
        "import sys, pathlib; from benchmarks import fuzz; "
        "print(len([fuzz.judge(pathlib.Path(p).read_bytes(), 0) for p in sys.argv[1:]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, CORPUS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)},
    )
    assert (done.stdout, done.stderr) == (f"{len(CORPUS)}\n", "")


@pytest.mark.parametrize("mutation", [*fuzz.DAMAGE, *fuzz.FORGERY], ids=lambda m: m.__name__)
def test_a_mutated_stream_is_refused_or_what_it_may_be(mutation, seeds):
    draw = random.Random(f"tests/{mutation.__name__}")
    for number in range(20):
        seed = draw.choice(seeds)
        symbols = seed.symbols if mutation in fuzz.DAMAGE else None
        fuzz.judge(mutation(draw, seed, seeds), number, symbols)


def test_a_stream_to_start_from_decodes(seeds):
    for seed in seeds:
        assert fuzz.judge(seed.stream, 0, seed.symbols) == "decoded"


@pytest.mark.parametrize("family", [family.name for family in FAMILIES if family.kind == "image"])
def test_symbols_that_are_made_up_make_a_sound_stream_of_every_family(family):
    stream = (fuzz.VECTORS / family / "photo.bin").read_bytes()
    draw, seed = random.Random(family), fuzz.Seed("", family, stream, (), "")
    found = {fuzz.symbols(draw, seed, [seed]) for _ in range(8)}
    assert {fuzz.judge(made, 0) for made in found} == {"decoded"}
    assert len(found) == 8


def test_a_case_is_the_same_whenever_it_is_made(seeds):
    for number in range(40):
        assert fuzz.make_case(seeds, 1, number) == fuzz.make_case(seeds, 1, number)
    assert fuzz.make_case(seeds, 1, 5).stream != fuzz.make_case(seeds, 2, 5).stream


def test_forgery_has_right_checksums_and_damage_has_not(seeds):
    draw = random.Random(3)
    for seed in seeds:
        assert fuzz.assemble(fuzz.take_apart(seed.stream)) == seed.stream
        for mutation in (fuzz.payload, fuzz.header, fuzz.sub_streams, fuzz.symbols):
            chunks = scan(mutation(draw, seed, seeds)).chunks
            assert all(chunk.crc_ok for chunk in chunks)
        damaged = fuzz.burst(draw, seed, seeds)
        assert damaged == seed.stream or scan_fails(damaged)


def scan_fails(stream):
    try:
        return scan(stream).error is not None
    except BitstreamError:
        return True


def test_a_stream_that_decodes_to_other_symbols_is_noticed(seeds):
    with pytest.raises(fuzz.FailedError, match="silent wrong output"):
        fuzz.judge(seeds[0].stream, 0, seeds[1].symbols)


@pytest.mark.parametrize("name", fuzz_targets.NAMES)
def test_a_target_takes_sound_and_mutated_bytes(name):
    target = fuzz_targets.target(name)
    draw = random.Random(f"tests/{name}")
    starts = fuzz_targets.starts(name)
    assert len(starts) >= 5
    for start in [*starts, b""]:
        target(start)
    for _ in range(50):
        target(fuzz.spoilt(draw, draw.choice(starts)))


@pytest.mark.parametrize("name", sorted(fuzz_targets.GOLDEN))
def test_a_family_s_target_reaches_its_pixels_and_looks_at_them(name, monkeypatch):
    family = family_by_name(name).load()
    monkeypatch.setattr(family, "synthesise", lambda *_: torch.zeros(1, 3, 1, 1))
    target = fuzz_targets.target(name)
    noticed = 0
    for start in fuzz_targets.starts(name):
        try:
            target(start)
        except fuzz.FailedError:
            noticed += 1
    # The picture of one pixel has nothing wrong with it.
    assert noticed == len(fuzz_targets.starts(name)) - sum(
        unpack(stream).header.width == 1 for stream in fuzz_targets.GOLDEN[name]
    )


def test_a_worker_that_dies_or_hangs_is_a_failure_of_its_case_and_the_rest_goes_on(monkeypatch):
    monkeypatch.setattr(fuzz, "work", dying)
    monkeypatch.setattr(fuzz, "SECONDS", 3)
    outcomes = list(fuzz.drive([], 1, range(5)))
    assert [outcome.number for outcome in outcomes] == [0, 1, 2, 3, 4]
    assert [outcome.came for outcome in outcomes] == [
        "decoded",
        "failed",
        "decoded",
        "failed",
        "decoded",
    ]
    assert "code 3" in outcomes[1].reason
    assert "no answer in 3 s" in outcomes[3].reason


def dying(known, seed, numbers, pipe):
    import time

    pipe.send(None)
    for number in numbers:
        if number == 1:
            os._exit(3)
        if number == 3:
            time.sleep(60)
        pipe.send(fuzz.Outcome(number, "decoded", "", 0.0, 0.0))


@pytest.mark.parametrize("mutation", [*fuzz.DAMAGE, *fuzz_video.FORGERY], ids=lambda m: m.__name__)
def test_a_mutated_video_is_refused_or_what_it_may_be(mutation):
    seeds = fuzz_video.seeds()
    draw = random.Random(f"videos/{mutation.__name__}")
    for number in range(20):
        seed = draw.choice(seeds)
        symbols = seed.symbols if mutation in fuzz.DAMAGE else None
        fuzz_video.judge(mutation(draw, seed, seeds), number, symbols)


def test_a_video_to_start_from_decodes_and_another_is_noticed():
    seeds = fuzz_video.seeds()
    assert len(seeds) >= 6
    for seed in seeds:
        assert fuzz_video.judge(seed.stream, 0, seed.symbols) == "decoded"
    with pytest.raises(fuzz.FailedError, match="silent wrong output"):
        fuzz_video.judge(seeds[0].stream, 0, seeds[1].symbols)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Streams of a toy, and those of families that ship."""
    zoo = make_scene_zoo(tmp_path_factory.mktemp("zoo"))
    fuzz.ZOO_OF[zoo.manifest()[0].model_id] = zoo
    made = [
        codec.encode_scene(moving(100, 3, degree), key_every=2, quality=90, zoo=zoo)
        for degree in (0, 2)
    ]
    yield [*fuzz_scene.seeds(), *(fuzz_scene.seed_of("toy", stream) for stream in made)]
    del fuzz.ZOO_OF[zoo.manifest()[0].model_id]


@pytest.mark.parametrize("mutation", [*fuzz.DAMAGE, *fuzz_scene.FORGERY], ids=lambda m: m.__name__)
def test_a_mutated_scene_is_refused_or_what_it_may_be(mutation, scenes):
    draw = random.Random(f"scenes/{mutation.__name__}")
    for number in range(40):
        seed = draw.choice(scenes)
        symbols = seed.symbols if mutation in fuzz.DAMAGE else None
        fuzz_scene.judge(mutation(draw, seed, scenes), number, symbols)


def test_a_scene_to_start_from_decodes_and_another_is_noticed(scenes):
    for seed in scenes:
        assert fuzz_scene.judge(seed.stream, 0, seed.symbols) == "decoded"
    with pytest.raises(fuzz.FailedError, match="silent wrong output"):
        fuzz_scene.judge(scenes[0].stream, 0, scenes[1].symbols)
    draw = random.Random(1)
    made = {fuzz_scene.symbols(draw, seed, scenes) for seed in scenes for _ in range(4)}
    assert "decoded" in {fuzz_scene.judge(stream, 0) for stream in made}

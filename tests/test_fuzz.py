"""Hostile streams: those that were kept, and new ones. `benchmarks/fuzz.py` makes many more."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import fuzz
from codec.bitstream import scan
from codec.errors import BitstreamError
from codec.weights import SHIPPED

ROOT = Path(__file__).parents[1]
CORPUS = sorted((ROOT / "tests/corpus").glob("*.bin"))


@pytest.fixture(scope="module")
def seeds():
    return fuzz.seeds(entry for entry in SHIPPED.manifest() if entry.name == "iscs/small")


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


SHIPS = sorted({entry.family for entry in SHIPPED.manifest()})


@pytest.mark.parametrize("family", SHIPS)
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

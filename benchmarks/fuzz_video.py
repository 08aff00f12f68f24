"""Mutated streams of videos, and what came of each.

    python -m benchmarks.fuzz_video [--count 5000] [--seed 1] [--only N]
        [--out benchmarks/results/fuzz_video.json]

As `fuzz.py`, whose mutations these are besides two of groups: a stream whose checksums do not fit
is refused or decodes to the symbols that it had; one whose checksums were made right again is
refused or gives as many frames as it says, of the size that it says. Nothing but a `CodecError` may
escape, and 10 s and 1500 MB are the limits of a case.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import fuzz
from benchmarks.fuzz import FailedError, Mutation, Seed
from codec.api import DecodeOptions, info, open_video
from codec.benchmark.provenance import origin
from codec.bitstream import (
    Chunk,
    ChunkType,
    Video,
    pack,
    pack_streams,
    pack_video,
    unpack,
    unpack_streams,
)
from codec.entropy import Encoder, Silence
from codec.errors import CodecError
from codec.models.base import GroupGeometry
from codec.progress import Stopwatch
from codec.registry import FAMILIES
from codec.video import video_model_of
from codec.weights import SHIPPED

FRAMES = 200  # that are looked at, of a stream that says it has more


@cache
def seeds() -> tuple[Seed, ...]:
    """The golden streams of all families of videos."""
    found = []
    for family in FAMILIES:
        if family.kind != "video":
            continue
        for path in sorted((fuzz.VECTORS / family.name).glob("*.bin")):
            stream = path.read_bytes()
            model = video_model_of(unpack(stream).header, SHIPPED, "cpu")
            opened = open_video(stream, DecodeOptions(), watch=Stopwatch())
            for _ in opened.frames:
                pass
            names = tuple(model.family.streams)
            found.append(
                Seed(path.stem, model.entry.name, stream, names, opened.digest.hexdigest())
            )
    return tuple(found)


def groups(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """The sub-streams of a group spoilt, or those of another stream, with right lengths."""
    chunks = fuzz.take_apart(seed.stream)
    at = draw.choice([at for at, chunk in enumerate(chunks) if chunk[0] == ChunkType.GROUP])
    streams = unpack_streams(chunks[at][1], seed.names)
    name = draw.choice(seed.names)
    streams[name] = fuzz.spoilt(draw, streams[name])
    chunks[at] = (ChunkType.GROUP, pack_streams(streams))
    return fuzz.assemble(chunks)


def symbols(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """Any weights at all, soundly coded, for any size and number of frames."""
    container = unpack(seed.stream)
    family = video_model_of(container.header, SHIPPED, "cpu").family
    geometry = GroupGeometry(draw.randint(1, 90), draw.randint(1, 90), draw.randint(1, 9))
    silent = family.traverse(Silence(), None, geometry)
    numbers = np.random.default_rng(draw.getrandbits(32))
    peak = draw.choice((1, 20, 97, 1 << 15, 1 << 20))
    some = {
        name: numbers.integers(-peak, peak + 1, len(values), np.int32) % draw.choice((17, 97, peak))
        for name, values in silent.items()
    }
    some["network"][0] = 0  # or sizes would not fit
    encoder = Encoder()
    try:
        family.traverse(encoder, some, geometry)
    except CodecError:
        encoder = Encoder()
        family.traverse(encoder, silent, geometry)
    video = replace(container.video, groups=(geometry.frames,))
    return pack(
        replace(container.header, width=geometry.width, height=geometry.height),
        [
            Chunk(ChunkType.VIDEO, pack_video(video)),
            Chunk(ChunkType.GROUP, pack_streams(encoder.finish())),
        ],
    )


def resize(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """Another size, and other lengths of groups."""
    container = unpack(seed.stream)
    width, height = (draw.choice((1, 15, 48, 200, 1000, 2048)) for _ in range(2))
    lengths = [draw.choice((1, 2, 7, 64, 65, 1 << 16)) for _ in range(draw.randint(1, 3))]
    payloads = [group for source in (seed, draw.choice(others))
                for group in unpack(source.stream).groups]  # fmt: skip
    video = Video(
        rate=(draw.choice((1, 30000)), draw.choice((1, 1001))),
        matrix=draw.randrange(256),
        full_range=draw.random() < 0.5,
        groups=tuple(lengths),
    )
    chunks = [Chunk(ChunkType.GROUP, draw.choice(payloads)) for _ in lengths]
    header = replace(container.header, width=width, height=height)
    return pack(header, [Chunk(ChunkType.VIDEO, pack_video(video)), *chunks])


FORGERY: tuple[Mutation, ...] = (
    fuzz.splice, fuzz.payload, fuzz.header, fuzz.lengths, fuzz.chunk_list, groups, symbols, resize
)  # fmt: skip


def judge(stream: bytes, number: int, symbols: str | None = None) -> str:
    """`fuzz.judge` for videos: `decoded`, or the name of the error that refused it."""
    try:
        info(stream)
        options = DecodeOptions(allow_partial=symbols is None and number % 2 == 1)
        opened = open_video(stream, options, watch=Stopwatch())
        count = 0
        for frame in itertools.islice(opened.frames, FRAMES):
            count += 1
            if frame.shape != (opened.look.height, opened.look.width, 3):
                raise FailedError(f"a frame of {frame.shape}, and it declares {opened.look}")
    except CodecError as error:
        return type(error).__name__
    if count != min(FRAMES, len(opened.interval)):
        raise FailedError(f"{count} frames, and it declares {len(opened.interval)}")
    if symbols is not None and opened.digest.hexdigest() != symbols:
        raise FailedError("silent wrong output: damaged, and it decodes to other symbols")
    return "decoded"


def make_case(seed: int, number: int) -> tuple[bytes, str, str | None]:
    """Stream, mutation and the symbols that it may decode to, of case `number` of a run."""
    return case_of(random.Random(f"videos/{seed}/{number}"), FORGERY, seeds())


def case_of(
    draw: random.Random, forgery: Sequence[Mutation], known: Sequence[Seed]
) -> tuple[bytes, str, str | None]:
    """A case drawn from these seeds: three of four are forged, the others damaged."""
    mutation = draw.choice(forgery if draw.random() < 0.75 else fuzz.DAMAGE)
    chosen = draw.choice(known)
    stream = mutation(draw, chosen, known)
    return stream, mutation.__name__, chosen.symbols if mutation in fuzz.DAMAGE else None


def run_cases(
    name: str,
    make_case: Callable[[int, int], tuple[bytes, str, str | None]],
    judge: Callable[[bytes, int, str | None], str],
) -> None:
    """The command line: judge many cases; one that fails ends the run with its number.

    Args:
        name: of the benchmark's module, and of the file of its results.
        make_case: stream, mutation and the symbols that it may decode to, of a seed and a number.
        judge: says what came of a stream, its number and those symbols; raises what breaks a
            promise.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / f"results/{name}.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    numbers = range(options.count) if options.only is None else [options.only]
    came: Counter[str] = Counter()
    slowest = 0.0
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in numbers:
        stream, mutation, expected = make_case(options.seed, number)
        started = time.perf_counter()
        try:
            found = judge(stream, number, expected)
        except Exception as error:
            raise SystemExit(f"case {number}, {mutation}: {error!r}") from error
        seconds = time.perf_counter() - started
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begin) * 1024 / 1e6
        if seconds > fuzz.SECONDS or peak > fuzz.MEGABYTES:
            raise SystemExit(f"case {number}, {mutation}: {seconds:.1f} s, {peak:.0f} MB")
        slowest = max(slowest, seconds)
        came[f"{mutation}: {found}"] += 1
    result: dict[str, Any] = {
        "command": f"python -m benchmarks.{name} --count {options.count} --seed {options.seed}",
        **origin(),
        "cases": sum(came.values()),
        "failed": 0,
        "slowest_seconds": round(slowest, 2),
        "peak_mb": round(peak),
        "came": dict(sorted(came.items())),
    }
    print(json.dumps(result["came"], indent=1))
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    run_cases("fuzz_video", make_case, judge)

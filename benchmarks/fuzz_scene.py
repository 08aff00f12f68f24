"""Mutated streams of scenes, and what came of each.

    python -m benchmarks.fuzz_scene [--count 5000] [--seed 1] [--only N]
        [--out benchmarks/results/fuzz_scene.json]

As `fuzz_video.py`: a stream whose checksums do not fit is refused or decodes to the symbols that it
had; one whose checksums were made right again, of slices too, is refused or gives as many frames as
it says, of at most as many Gaussians. With what is left asked for, slices may be held.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from benchmarks import fuzz
from benchmarks.fuzz import Dice, FailedError, Mutation, Seed, zoo_of
from benchmarks.fuzz_video import case_of, run_cases
from codec.api import DecodeOptions, info, open_scene
from codec.bitstream import (
    Chunk,
    ChunkType,
    Unit,
    pack,
    pack_scene,
    pack_streams,
    pack_unit,
    unpack,
    unpack_streams,
    unpack_unit,
)
from codec.entropy import Encoder
from codec.errors import CodecError
from codec.models.base import AbstractScene
from codec.moving import scene_model_of
from codec.progress import Stopwatch
from codec.registry import FAMILIES

FRAMES = 20  # that are looked at, of a stream that says it has more
SLICES = 1 << 20


def seed_of(name: str, stream: bytes) -> Seed:
    """A sound stream to start from."""
    opened = open_scene(stream, DecodeOptions(zoo=zoo_of(stream)), watch=Stopwatch())
    for _ in opened.frames:
        pass
    return Seed(name, "", stream, tuple(_scene(stream).streams), opened.digest.hexdigest())


@cache
def seeds() -> tuple[Seed, ...]:
    """The golden streams of all families of scenes."""
    names = [family.name for family in FAMILIES if family.kind == "scene"]
    paths = [path for name in names for path in sorted((fuzz.VECTORS / name).glob("*.bin"))]
    return tuple(seed_of(path.stem, path.read_bytes()) for path in paths)


def _scene(stream: bytes) -> AbstractScene:
    container = unpack(stream)
    model = scene_model_of(container.header, zoo_of(stream))
    return model.family.scene(container.scene.plan)


def _again(stream: bytes, units: Sequence[bytes], **changes: object) -> bytes:
    """The scene of a stream with other units, and what SCENE says changed."""
    container = unpack(stream)
    scene = replace(container.scene, frames=len(units), **changes)  # type: ignore[arg-type]
    made = [Chunk(ChunkType.UNIT, unit) for unit in units]
    return pack(container.header, [Chunk(ChunkType.SCENE, pack_scene(scene)), *made])


def slices(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """Sub-streams of a slice spoilt, or a slice of another stream, with right checksums."""
    units = list(unpack(seed.stream).units)
    at = draw.randrange(len(units))
    unit = unpack_unit(units[at], at, slices_max=SLICES)
    parts = list(unit.slices)
    where = draw.randrange(len(parts))
    if draw.random() < 0.2:
        other = draw.choice(others).stream
        parts[where] = draw.choice(unpack_unit(unpack(other).units[0], 0, slices_max=SLICES).slices)
    else:
        streams = unpack_streams(parts[where] or b"", seed.names)
        name = draw.choice(seed.names)
        streams[name] = fuzz.spoilt(draw, streams[name])
        parts[where] = pack_streams(streams)
    units[at] = pack_unit(replace(unit, slices=tuple(parts)))
    return _again(seed.stream, units)


def unit_heads(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """The frame, the kind, or how many slices a unit has; units that are moved or repeated."""
    units = list(unpack(seed.stream).units)
    at = draw.randrange(len(units))
    unit = unpack_unit(units[at], at, slices_max=SLICES)
    way = draw.randrange(5)
    if way == 0:
        unit = replace(unit, frame=draw.choice((0, 1, at + 1, 1 << 40)))
    elif way == 1:
        unit = replace(unit, is_key=not unit.is_key)
    elif way == 2:
        unit = replace(unit, slices=draw.choices(unit.slices, k=draw.choice((1, 2, 3, 2000))))
    elif way == 3:
        units.insert(at, draw.choice(units))
    units[at] = fuzz.spoilt(draw, units[at]) if way == 4 else pack_unit(unit)
    return _again(seed.stream, units)


def plan(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """What SCENE says: another plan, key frames elsewhere, more or fewer Gaussians."""
    scene, units = unpack(seed.stream).scene, unpack(seed.stream).units
    return _again(
        seed.stream,
        units[: draw.randint(1, len(units))],
        plan=fuzz.spoilt(draw, scene.plan) if draw.random() < 0.7 else scene.plan,
        key_every=draw.choice((1, 2, 30, 1 << 16)),
        gaussians=draw.choice((0, 1, scene.gaussians, 1 << 22, 1 << 30)),
    )


def symbols(draw: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """Any symbols at all, soundly coded, in frames that go on from each other."""
    scene = _scene(seed.stream)
    numbers = np.random.default_rng(draw.getrandbits(32))
    units, before = [], None
    for number in range(draw.randint(1, 3)):
        encoder = Encoder()
        try:
            some = scene.traverse(Dice(numbers), None, before)
            scene.traverse(encoder, some, before)
            payload = pack_streams(encoder.finish())
            units.append(pack_unit(Unit(number, number == 0, (payload,))))
            before = scene.after(some, before)
        except (CodecError, ValueError):  # not all numbers are, nor can all be coded
            break
    return _again(seed.stream, units or unpack(seed.stream).units, key_every=30, gaussians=1 << 20)


FORGERY: tuple[Mutation, ...] = (
    fuzz.splice, fuzz.payload, fuzz.header, fuzz.chunk_list, slices, unit_heads, plan, symbols
)  # fmt: skip


def judge(stream: bytes, number: int, symbols: str | None = None) -> str:
    """`fuzz.judge` for scenes: `decoded`, or the name of the error that refused it."""
    try:
        zoo = zoo_of(stream)
        info(stream, zoo=zoo)
        options = DecodeOptions(allow_partial=symbols is None and number % 2 == 1, zoo=zoo)
        opened = open_scene(stream, options, watch=Stopwatch())
        count = 0
        for frame in itertools.islice(opened.frames, FRAMES):
            count += 1
            if len(frame) > opened.gaussians:
                raise FailedError(f"{len(frame)} Gaussians, and it declares {opened.gaussians}")
    except CodecError as error:
        return type(error).__name__
    if count != min(FRAMES, len(opened.interval)):
        raise FailedError(f"{count} frames, and it declares {len(opened.interval)}")
    if symbols is not None and opened.digest.hexdigest() != symbols:
        raise FailedError("silent wrong output: damaged, and it decodes to other symbols")
    return "decoded"


def make_case(seed: int, number: int) -> tuple[bytes, str, str | None]:
    """Stream, mutation and the symbols that it may decode to, of case `number` of a run."""
    return case_of(random.Random(f"scenes/{seed}/{number}"), FORGERY, seeds())


if __name__ == "__main__":
    run_cases("fuzz_scene", make_case, judge)

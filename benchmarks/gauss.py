"""Bytes and decibels of `gauss` on a scripted scene, beside files of each frame, in one run.

    python benchmarks/gauss.py [--count 20000] [--frames 30] [--degree 0] [--active 0.05]
        [--qualities 30,60,90] [--out benchmarks/results/gauss.json]

Every byte is counted: streams as they are written, peers as the sum of their files. Decibels are
against renders of the Gaussians as they were, means over three views of the first frame, one in the
middle and the last; no view sees a plane square on, where the last bit of a depth decides what is
in front. Milliseconds are of one core, of all frames that follow a key frame.

Peers: PLY and zstd of each frame; SPZ of each frame; PLY and zstd of the first, and then what
changes as float32, and zstd. A scene that is scripted keeps its Gaussians' numbers, which the last
one needs and `gauss` does not.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard

import codec
from codec.benchmark.provenance import origin
from codec.cameras import Camera
from codec.datasets.scenes import scripted
from codec.gaussians import Gaussians
from codec.io.splats import read_splats, write_splats
from codec.models.gauss.render import render

SIZE = 256, 192
MIDDLE, FIELD = (0.0, 0.3, 4.5), 60.0
EYES = ((-1.3, -0.6, 0.3), (0.2, -0.6, 0.1), (1.5, -0.6, 0.35))


def views() -> list[Camera]:
    """Cameras that look at the middle of the scene from three sides, each a little from above."""
    width, height = SIZE
    return [
        Camera.looking(eye=eye, at=MIDDLE, width=width, height=height, field=FIELD) for eye in EYES
    ]


def decibels(frames: Sequence[Gaussians], found: Sequence[Gaussians]) -> float:
    """PSNR of renders, the mean over views of a few frames."""
    each = []
    for number in {0, len(frames) // 2, len(frames) - 1}:
        for camera in views():
            apart = render(frames[number], camera) - render(found[number], camera)
            each.append(-10 * np.log10(np.square(apart).mean() + 1e-12))
    return round(float(np.mean(each)), 2)


def ours(frames: list[Gaussians], quality: int) -> dict[str, Any]:
    """Bytes, decibels, and milliseconds of a frame that follows."""
    started = time.perf_counter()
    stream = codec.encode_scene(frames, quality=quality)
    encoding = time.perf_counter() - started
    key = codec.encode_scene(frames[:1], quality=quality)
    found = list(codec.decode_scene(stream))
    last = len(frames) - 1

    def seconds(end: int) -> float:
        began = time.perf_counter()
        for _ in codec.decode_scene(stream, frames=(end - 1, end)):
            pass
        return time.perf_counter() - began

    ways = [seconds(last + 1) - seconds(1) for _ in range(3)]
    most = max(map(len, frames))
    return {
        "quality": quality,
        "bytes": len(stream),
        "key_bits_per_gaussian": round(8 * len(key) / len(frames[0]), 2),
        "later_bits_per_gaussian": round(8 * (len(stream) - len(key)) / (most * last), 3),
        "decibels": decibels(frames, found),
        "encode_seconds_per_frame": round(encoding / len(frames), 2),
        "decode_ms_per_later_frame": round(1000 * float(np.median(ways)) / last, 1),
    }


def of_files(frames: Sequence[Gaussians], name: str, pack: Callable[[bytes], bytes]) -> Any:
    """Bytes and decibels of a file for each frame."""
    size, found = 0, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        for frame in frames:
            write_splats(path, frame)
            size += len(pack(path.read_bytes()))
            found.append(read_splats(path))
    return {"bytes": size, "decibels": decibels(frames, found)}


def residuals(frames: Sequence[Gaussians]) -> dict[str, Any]:
    """Bytes of the first frame, and of differences of float32; they are lossless."""
    flat = [
        np.concatenate([getattr(frame, field.name).reshape(-1) for field in fields(frame)])
        for frame in frames
    ]
    parts = [flat[0], *(after - before for before, after in pairwise(flat))]
    return {"bytes": sum(len(zstandard.compress(part.tobytes(), 3)) for part in parts)}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--degree", type=int, default=0)
    parser.add_argument("--active", type=float, default=0.05)
    parser.add_argument("--qualities", default="30,60,90")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    scene = scripted(
        options.count, frames=options.frames, degree=options.degree, moving=options.active
    )
    frames = [scene.frame(number) for number in range(options.frames)]
    result = {
        **origin(),
        "gaussians": options.count,
        "frames": options.frames,
        "degree": options.degree,
        "active": options.active,
        "gauss": [ours(frames, int(quality)) for quality in options.qualities.split(",")],
        "ply_zstd": of_files(frames, "x.ply", lambda data: zstandard.compress(data, 3)),
        "spz": of_files(frames, "x.spz", lambda data: data),
        "residual_zstd": residuals(frames),
    }
    text = json.dumps(result, indent=1) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()

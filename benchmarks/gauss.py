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

Two more at degree 0 alone, for neither writes higher harmonics, each with one key frame, zstd at
level 19 and a row for each setting: `fourdgs` (of the extra `bench`) as its keyframe-delta model,
which is given the Gaussians' numbers too; and `splat4d`, a command for Linux (`pip install
splats4d`), of `.splat` files. Both hold colours within [0, 1], which some of the scene's are not. A
peer that is not installed is left out, and a line says so.

Peers with loss are set beside the lowest quality of `gauss` that has no fewer decibels.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard

import codec
from codec.benchmark.provenance import origin
from codec.cameras import Camera
from codec.datasets.scenes import Scripted, scripted
from codec.gaussians import FIRST_HARMONIC, Gaussians
from codec.io.splats import read_splats, write_splats
from codec.io.spz import logits_of
from codec.models.gauss.render import render

SIZE = 256, 192
MIDDLE, FIELD = (0.0, 0.3, 4.5), 60.0
EYES = ((-1.3, -0.6, 0.3), (0.2, -0.6, 0.1), (1.5, -0.6, 0.35))

PROFILES = "fine", "default", "coarse"  # of fourdgs
# Of splat4d: millimetres, levels of colours, steps of rotations, per cent of scales; its default is
# the second.
BOUNDS = ((1, 1, 0, 1), (2, 4, 0, 2), (4, 4, 1, 4), (10, 12, 3, 8))
RATE = 30  # frames in a second, which both want to know
ZSTD_LEVEL = 19


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


def fourdgs_rows(scene: Scripted) -> list[dict[str, Any]]:
    """Bytes and decibels of the keyframe-delta model of `fourdgs`, for each of its profiles."""
    try:
        import fourdgs
        from fourdgs.keyframe_delta_file import decode_streamed, render_at, write_sequence
        from fourdgs.keyframe_delta_writer import KeyframeDeltaOptions, Sample
        from fourdgs.serialization import CODEC_ZSTD
    except ImportError as error:
        print(f"fourdgs is left out: {error}", file=sys.stderr)
        return []
    duration = scene.frames / RATE

    def stated(frame: Gaussians) -> Any:
        zeros = np.zeros(len(frame), np.float32)
        colours = 0.5 + FIRST_HARMONIC * frame.sh[:, 0]
        alphas = 1 / (1 + np.exp(-frame.opacities))
        return fourdgs.GaussianSet(
            positions=frame.means,
            scales=np.exp(frame.scales),
            rotations=frame.quats[:, [1, 2, 3, 0]],
            colors=np.concatenate([colours, alphas[:, None]], 1),
            motions=np.zeros((len(frame), 3), np.float32),
            mu_t=zeros,
            sigma_t=zeros + 1e6,  # seconds: none fades
            win_lo=zeros,
            win_hi=zeros + duration,
        )

    def found(state: dict[str, Any]) -> Gaussians:
        colours = (state["rgb"] - 0.5) / FIRST_HARMONIC
        return Gaussians(
            means=state["centers"].astype(np.float32),
            quats=state["rotations"][:, [3, 0, 1, 2]].astype(np.float32),
            scales=np.log(state["scales"]).astype(np.float32),
            opacities=logits_of(255 * state["opacity"]),
            sh=colours[:, None].astype(np.float32),
        )

    frames = [scene.frame(number) for number in range(scene.frames)]
    samples = [
        Sample(number / RATE, scene.ids(number), stated(frame))
        for number, frame in enumerate(frames)
    ]
    rows = []
    for profile in PROFILES:
        data = write_sequence(
            samples,
            duration,
            kd=KeyframeDeltaOptions(keyframe_every=scene.frames),
            profile=profile,
            codec=CODEC_ZSTD,
            level=ZSTD_LEVEL,
        )
        decoded = decode_streamed(data)
        states = [render_at(decoded, (number + 0.5) / RATE) for number in range(scene.frames)]
        dB = decibels(frames, [found(state) for state in states])
        rows.append({"profile": profile, "bytes": len(data), "decibels": dB})
    return rows


def splat4d_rows(frames: Sequence[Gaussians]) -> list[dict[str, Any]]:
    """Bytes and decibels of the command `splat4d`, for each of `BOUNDS`."""
    command = shutil.which("splat4d")
    if command is None:
        print("splat4d is left out: no such command", file=sys.stderr)
        return []
    names = "--pos-mm", "--color-levels", "--rot-steps", "--scale-pct"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        given, coded, frame = (Path(folder) / name for name in ("given", "coded", "x.splat"))
        given.mkdir()
        for number, gaussians in enumerate(frames):
            write_splats(given / f"frame_{number:04}.splat", gaussians)
        for bounds in BOUNDS:
            options = [str(each) for pair in zip(names, bounds, strict=True) for each in pair]
            options += ["--gop", str(len(frames)), "--zstd-level", str(ZSTD_LEVEL)]
            encode = [command, "encode", "-i", given, "-o", coded, *options]
            subprocess.run(encode, check=True, capture_output=True)
            found = []
            for number in range(len(frames)):
                decode = [command, "decode", coded, "--frame", str(number), "-o", frame]
                subprocess.run(decode, check=True, capture_output=True)
                found.append(read_splats(frame))
            size, dB = coded.stat().st_size, decibels(frames, found)
            rows.append({"options": " ".join(options), "bytes": size, "decibels": dB})
    return rows


def beside(rows: Sequence[dict[str, Any]], frames: Sequence[Gaussians]) -> None:
    """Add to each row the lowest quality of `gauss` that has no fewer decibels, if there is one."""

    @cache
    def at(quality: int) -> dict[str, Any]:
        stream = codec.encode_scene(frames, quality=quality)
        dB = decibels(frames, list(codec.decode_scene(stream)))
        return {"quality": quality, "bytes": len(stream), "decibels": dB}

    for row in rows:
        low, high = 0, 101
        while low < high:
            middle = (low + high) // 2  # at most 100
            if at(middle)["decibels"] >= row["decibels"]:
                high = middle
            else:
                low = middle + 1
        row["gauss"] = at(low) if low <= 100 else None


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
    spz = of_files(frames, "x.spz", lambda data: data)
    fourdgs = fourdgs_rows(scene) if options.degree == 0 else []
    splat4d = splat4d_rows(frames) if options.degree == 0 else []
    beside([spz, *fourdgs, *splat4d], frames)
    result = {
        **origin(),
        "gaussians": options.count,
        "frames": options.frames,
        "degree": options.degree,
        "active": options.active,
        "gauss": [ours(frames, int(quality)) for quality in options.qualities.split(",")],
        "ply_zstd": of_files(frames, "x.ply", lambda data: zstandard.compress(data, 3)),
        "spz": spz,
        "residual_zstd": residuals(frames),
        "fourdgs": fourdgs,
        "splat4d": splat4d,
    }
    text = json.dumps(result, indent=1) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()

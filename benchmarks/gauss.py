"""Bytes and decibels of `gauss` on a scene of Gaussians, beside files of each frame, in one run.

    python benchmarks/gauss.py [--count 20000] [--frames 30] [--degree 0] [--active 0.05]
        [--qualities 30,60,90] [--out benchmarks/results/gauss.json]
    python benchmarks/gauss.py --sequence 'frames/%04d.ply' [--scene FOLDER] ...

The first is a scripted scene. The second is what files hold that `codec encode` reads as one scene;
with `--scene`, the folder of videos that it was fitted to.

Every byte is counted: streams as they are written, peers as the sum of their files. Decibels are
against renders of the Gaussians as they were, means over views of the first frame, one in the
middle and the last: three views of a scripted scene, none of which sees a plane square on, where
the last bit of a depth decides what is in front; three from around what files hold, or the camera
of the folder that was held out. `picture_decibels` are against that camera's pictures.
Milliseconds are of one core, of all frames that follow a key frame.

Peers: PLY and zstd of each frame; SPZ of each frame; the first as float32, then what changes, and
zstd. The last one needs the Gaussians' numbers, which `gauss` does not: a scripted scene keeps
them, and in files Gaussians are found again as `gauss` does it.

Two more at degree 0 alone, for neither writes higher harmonics, each with one key frame, zstd at
level 19 and a row for each setting: `fourdgs` (of the extra `bench`) as its keyframe-delta model,
which is given the Gaussians' numbers too; and `splat4d`, a command for Linux (`pip install
splats4d`), of `.splat` files. Both hold colours within [0, 1], which some of a scene's are not. A
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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
import zstandard
from numpy.typing import NDArray

import codec
from codec.benchmark.provenance import origin
from codec.cameras import Camera
from codec.datasets.multiview import read_multiview
from codec.datasets.scenes import scripted
from codec.gaussians import FIRST_HARMONIC, Gaussians
from codec.io.splats import read_splats, sequence_of, write_splats
from codec.io.spz import logits_of
from codec.models.gauss.lattice import key_rows
from codec.models.gauss.planning import planned
from codec.models.gauss.render import render
from codec.models.gauss.tracking import NOBODY, matched

SIZE = 256, 192
MIDDLE, FIELD = (0.0, 0.3, 4.5), 60.0
EYES = ((-1.3, -0.6, 0.3), (0.2, -0.6, 0.1), (1.5, -0.6, 0.35))
DISTANCE = 2.0  # from what files hold, in the distance within which nine tenths of it are
FINEST = 100  # quality of the steps in which Gaussians of files are found again

PROFILES = "fine", "default", "coarse"  # of fourdgs
# Of splat4d: millimetres, levels of colours, steps of rotations, per cent of scales; its default is
# the second.
BOUNDS = ((1, 1, 0, 1), (2, 4, 0, 2), (4, 4, 1, 4), (10, 12, 3, 8))
RATE = 30  # frames in a second, which both want to know
ZSTD_LEVEL = 19


@final
@dataclass(frozen=True)
class Case:
    """A scene to be measured.

    Attributes:
        frames: all of them.
        ids: of each frame `(n,)`, which Gaussian each is; none twice.
        views: cameras that decibels are of.
        pictures: `(V, H, W, 3)` uint8 of each frame, what those cameras saw; or none.
    """

    frames: list[Gaussians]
    ids: list[NDArray[np.int64]]
    views: list[Camera]
    pictures: list[NDArray[np.uint8]] | None = None

    def decibels(self, found: Sequence[Gaussians]) -> dict[str, float]:
        """PSNR of renders, the mean over views of a few frames."""
        each, seen = [], []
        last = len(self.frames) - 1
        for number in {0, (last + 1) // 2, last}:
            for view, camera in enumerate(self.views):
                x_hat = render(found[number], camera)
                each.append(_psnr(render(self.frames[number], camera), x_hat))
                if self.pictures is not None:
                    x_hat = np.rint(255 * x_hat) / 255
                    seen.append(_psnr(self.pictures[number][view] / 255, x_hat))
        found_of = {"decibels": each} | ({"picture_decibels": seen} if seen else {})
        return {name: round(float(np.mean(values)), 2) for name, values in found_of.items()}


def _psnr(x: NDArray[Any], x_hat: NDArray[Any]) -> float:
    return float(-10 * np.log10(np.square(x - x_hat).mean() + 1e-12))


def scripted_case(count: int, frames: int, degree: int, active: float) -> Case:
    """The scripted scene, seen from three sides, each a little from above."""
    scene = scripted(count, frames=frames, degree=degree, moving=active)
    numbers = range(frames)
    return Case([scene.frame(n) for n in numbers], [scene.ids(n) for n in numbers], looks(EYES))


def looks(eyes: Iterable[Sequence[float]], at: Sequence[float] = MIDDLE) -> list[Camera]:
    """Cameras that look from places at one."""
    width, height = SIZE
    return [
        Camera.looking(eye=tuple(eye), at=tuple(at), width=width, height=height, field=FIELD)
        for eye in eyes
    ]


def case_of_files(sequence: str, scene: Path | None) -> Case:
    """What files hold, and how it is seen: by the camera held out, or from around it."""
    frames = [read_splats(path) for path in sequence_of(sequence)]
    ids = numbers_of(frames)
    if scene is not None:
        videos = read_multiview(scene)
        pictures = [views[[videos.held_out]] for views in videos]
        return Case(frames, ids, [videos.cameras[videos.held_out]], pictures)
    middle = np.median(frames[0].means, 0)
    reach = np.percentile(np.linalg.norm(frames[0].means - middle, axis=1), 90)
    away = np.array(EYES) - MIDDLE  # as far from the middle as scripted scenes are seen
    eyes = middle + away * (reach * DISTANCE / np.linalg.norm(away, axis=1, keepdims=True))
    return Case(frames, ids, looks(eyes.tolist(), middle.tolist()))


def numbers_of(frames: Sequence[Gaussians]) -> list[NDArray[np.int64]]:
    """Which Gaussian of a frame is which of the one before, as `gauss` finds them again."""
    plan = planned(frames, FINEST)
    rows, order = key_rows(frames[0], plan)
    found = [np.arange(len(order))]
    ids, count = np.arange(len(order))[order], len(order)  # of the frame before, in `order`
    for frame in frames[1:]:
        before, (rows, order) = rows, key_rows(frame, plan)
        places = matched(before.base, rows.base)
        now = np.full(len(order), -1)
        now[places[places != NOBODY]] = ids[places != NOBODY]
        born = now < 0
        now[born] = count + np.arange(born.sum())
        ids, count = now, count + int(born.sum())
        of_file = np.empty(len(order), np.int64)
        of_file[order] = ids
        found.append(of_file)
    return found


def ours(case: Case, quality: int) -> dict[str, Any]:
    """Bytes, decibels, and milliseconds of a frame that follows."""
    frames = case.frames
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
        **case.decibels(found),
        "encode_seconds_per_frame": round(encoding / len(frames), 2),
        "decode_ms_per_later_frame": round(1000 * float(np.median(ways)) / last, 1),
    }


def of_files(case: Case, name: str, pack: Callable[[bytes], bytes]) -> Any:
    """Bytes and decibels of a file for each frame."""
    size, found = 0, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        for frame in case.frames:
            write_splats(path, frame)
            size += len(pack(path.read_bytes()))
            found.append(read_splats(path))
    return {"bytes": size, **case.decibels(found)}


def residuals(case: Case) -> dict[str, Any]:
    """Bytes of the first frame, and of differences of float32; they are lossless.

    Where Gaussians come or go, a byte for each that there was says whether it stays, and those that
    are born follow as they are.
    """
    size, before, ids_before = 0, case.frames[0].take(np.zeros(0, np.intp)), case.ids[0][:0]
    for frame, ids in zip(case.frames, case.ids, strict=True):
        _, old, new = np.intersect1d(ids_before, ids, assume_unique=True, return_indices=True)
        stays = np.isin(ids_before, ids).astype(np.uint8)
        order = np.argsort(old)  # as the frame before has them
        old, new = old[order], new[order]
        born = np.setdiff1d(np.arange(len(ids)), new)
        parts = [b"" if stays.all() else stays.tobytes()]
        for field in fields(frame):
            now, then = getattr(frame, field.name), getattr(before, field.name)
            parts += [(now[new] - then[old]).tobytes(), now[born].tobytes()]
        size += len(zstandard.compress(b"".join(parts), 3))
        order = np.concatenate([new, born])
        before, ids_before = frame.take(order), ids[order]
    return {"bytes": size}


def fourdgs_rows(case: Case) -> list[dict[str, Any]]:
    """Bytes and decibels of the keyframe-delta model of `fourdgs`, for each of its profiles."""
    try:
        import fourdgs
        from fourdgs.keyframe_delta_file import decode_streamed, render_at, write_sequence
        from fourdgs.keyframe_delta_writer import KeyframeDeltaOptions, Sample
        from fourdgs.serialization import CODEC_ZSTD
    except ImportError as error:
        print(f"fourdgs is left out: {error}", file=sys.stderr)
        return []
    duration = len(case.frames) / RATE

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

    samples = [
        Sample(number / RATE, ids, stated(frame))
        for number, (ids, frame) in enumerate(zip(case.ids, case.frames, strict=True))
    ]
    rows = []
    for profile in PROFILES:
        data = write_sequence(
            samples,
            duration,
            kd=KeyframeDeltaOptions(keyframe_every=len(samples)),
            profile=profile,
            codec=CODEC_ZSTD,
            level=ZSTD_LEVEL,
        )
        decoded = decode_streamed(data)
        states = [render_at(decoded, (number + 0.5) / RATE) for number in range(len(samples))]
        dB = case.decibels([found(state) for state in states])
        rows.append({"profile": profile, "bytes": len(data), **dB})
    return rows


def splat4d_rows(case: Case) -> list[dict[str, Any]]:
    """Bytes and decibels of the command `splat4d`, for each of `BOUNDS`.

    It wants as many Gaussians in each frame: those that are not there are given to it as they are
    in the nearest frame before, or else after, and which these are is no byte of its.
    """
    command = shutil.which("splat4d")
    if command is None:
        print("splat4d is left out: no such command", file=sys.stderr)
        return []
    bounded = "--pos-mm", "--color-levels", "--rot-steps", "--scale-pct"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        names = "given", "coded", "order", "x.splat"
        given, coded, order, frame = (Path(folder) / name for name in names)
        given.mkdir()
        for number, gaussians in enumerate(whole(case)):
            write_splats(given / f"frame_{number:04}.splat", gaussians)
        for bounds in BOUNDS:
            options = [str(each) for pair in zip(bounded, bounds, strict=True) for each in pair]
            options += ["--gop", str(len(case.frames)), "--zstd-level", str(ZSTD_LEVEL)]
            encode = [command, "encode", "-i", given, "-o", coded, "--perm-out", order, *options]
            subprocess.run(encode, check=True, capture_output=True)
            found, places = [], np.argsort(np.fromfile(order, np.uint32))
            for number, ids in enumerate(case.ids):
                decode = [command, "decode", coded, "--frame", str(number), "-o", frame]
                subprocess.run(decode, check=True, capture_output=True)
                found.append(read_splats(frame).take(places[ids]))
            size, dB = coded.stat().st_size, case.decibels(found)
            rows.append({"options": " ".join(options), "bytes": size, **dB})
    return rows


def whole(case: Case) -> list[Gaussians]:
    """Frames of all Gaussians that there ever are, in order of their numbers."""
    born = np.unique(np.concatenate(case.ids), return_index=True)[1]  # each in its first frame
    parts = [
        np.concatenate([getattr(f, field.name) for f in case.frames])[born]
        for field in fields(Gaussians)
    ]
    found = []
    for frame, ids in zip(case.frames, case.ids, strict=True):
        parts = [part.copy() for part in parts]
        for part, field in zip(parts, fields(frame), strict=True):
            part[ids] = getattr(frame, field.name)
        found.append(Gaussians(*parts))
    return found


def beside(rows: Sequence[dict[str, Any]], case: Case) -> None:
    """Add to each row the lowest quality of `gauss` that has no fewer decibels, if there is one."""

    @cache
    def at(quality: int) -> dict[str, Any]:
        stream = codec.encode_scene(case.frames, quality=quality)
        dB = case.decibels(list(codec.decode_scene(stream)))
        return {"quality": quality, "bytes": len(stream), **dB}

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
    parser.add_argument("--sequence", help="files to measure instead, as codec encode reads them")
    parser.add_argument("--scene", type=Path, help="videos and cameras that they were fitted to")
    parser.add_argument("--qualities", default="30,60,90")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.sequence is None:
        case = scripted_case(options.count, options.frames, options.degree, options.active)
    else:
        case = case_of_files(options.sequence, options.scene)
    degree = case.frames[0].degree
    spz = of_files(case, "x.spz", lambda data: data)
    fourdgs = fourdgs_rows(case) if degree == 0 else []
    splat4d = splat4d_rows(case) if degree == 0 else []
    beside([spz, *fourdgs, *splat4d], case)
    result = {
        **origin(),
        "gaussians": max(map(len, case.frames)),
        "frames": len(case.frames),
        "degree": degree,
        **({"active": options.active} if options.sequence is None else {}),
        "gauss": [ours(case, int(quality)) for quality in options.qualities.split(",")],
        "ply_zstd": of_files(case, "x.ply", lambda data: zstandard.compress(data, 3)),
        "spz": spz,
        "residual_zstd": residuals(case),
        "fourdgs": fourdgs,
        "splat4d": splat4d,
    }
    text = json.dumps(result, indent=1) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()

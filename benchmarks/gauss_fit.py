"""What fitting a scene to videos costs and gives, and what each part of it is good for.

    python -m benchmarks.gauss_fit [--frames 10] [--cameras 9] [--size 128x96] [--quality 60]
        [--effort 0] [--prices 0.25,1,4] [--out benchmarks/results/gauss_fit.json]

The scene is the ray-traced one of `codec.datasets.analytic`. Decibels are those of decoded streams
on the camera that was not looked at, the mean over frames of each one's PSNR; `fit_decibels` are
those of the Gaussians before they were coded, and `train_decibels` those of the other cameras.
Bytes are those of whole streams, and of what all frames after the first add. Seconds are of one
core. Every row begins with the same Gaussians, for the first frame has no gates.

Each row is made several times, with a price of bits and of gates that is so many times the usual.
`at_equal_decibels` are the bytes of each later frame with which a row comes to the decibels that
the full fit has at each price: logarithms of bytes over decibels, straight between the two points
of the row around it, and none where the row has no two.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import codec
from codec.benchmark.provenance import origin
from codec.cameras import Camera
from codec.datasets.analytic import Analytic, analytic
from codec.gaussians import Gaussians
from codec.models.gauss.fitting import Fitting, fit
from codec.models.gauss.following import Gating
from codec.models.gauss.render import render
from codec.moving import encode_planned, find_scene_model
from codec.progress import Stopwatch
from codec.weights import SHIPPED

ROWS = {
    "full": Gating(),
    "without gates of Gaussians": Gating(own=False),
    "without gates of regions": Gating(regions=False),
    "without rate": Gating(rate=0.0),
    "without gates": Gating(own=False, regions=False),
}


def decibels(
    frames: Sequence[Gaussians], pictures: Sequence[NDArray[np.uint8]], cameras: Sequence[Camera]
) -> float:
    """PSNR against `(V, H, W, 3)` pictures, the mean over frames and cameras."""
    each = []
    for frame, views in zip(frames, pictures, strict=True):
        for camera, x in zip(cameras, views, strict=True):
            x_hat = np.rint(255 * render(frame, camera)) / 255
            each.append(-10 * np.log10(np.square(x_hat - x / 255).mean()))
    return round(float(np.mean(each)), 2)


def row(
    scene: Analytic, pictures: Sequence[NDArray[np.uint8]], fitting: Fitting, quality: int
) -> dict[str, Any]:
    """What a fit of this kind makes."""
    used = [number for number in range(len(scene.cameras)) if number != scene.held_out]
    cameras = [scene.cameras[number] for number in used]
    seen = [views[used] for views in pictures]
    hidden = [views[[scene.held_out]] for views in pictures]
    started = time.perf_counter()
    plan, source = fit(cameras, seen, quality, fitting)
    frames = [next(source)]
    first = time.perf_counter() - started
    frames += source
    fitted = time.perf_counter() - started
    model, watch = find_scene_model("gauss", SHIPPED), Stopwatch()
    streams = [
        encode_planned(part, plan.pack(), model, quality, watch=watch).stream
        for part in (frames[:1], frames)
    ]
    found = list(codec.decode_scene(streams[1]))
    changed = [len(after) - len(_rows(after) & _rows(before)) for before, after in pairwise(found)]
    later = len(frames) - 1
    return {
        "bytes": len(streams[1]),
        "bytes_of_first_frame": len(streams[0]),
        "bytes_of_each_later_frame": round((len(streams[1]) - len(streams[0])) / later),
        "gaussians": max(map(len, found)),
        "changed_of_a_frame": round(float(np.mean(changed)), 1),
        "decibels": decibels(found, hidden, [scene.cameras[scene.held_out]]),
        "fit_decibels": decibels(frames, hidden, [scene.cameras[scene.held_out]]),
        "train_decibels": decibels(found, seen, cameras),
        "seconds_of_first_frame": round(first, 1),
        "seconds_of_each_later_frame": round((fitted - first) / later, 1),
    }


def _rows(frame: Gaussians) -> set[bytes]:
    parts = (frame.means, frame.quats, frame.scales, frame.opacities, frame.sh)
    flat = np.concatenate([part.reshape(len(frame), -1) for part in parts], 1)
    return {each.tobytes() for each in flat}


def at_equal(points: Sequence[dict[str, Any]], kind: str, aim: float) -> int | None:
    """Bytes of each later frame for so many decibels, if a row has fewer and more."""
    points = sorted(points, key=lambda point: float(point[kind]))
    x = [point[kind] for point in points]
    if not x[0] <= aim <= x[-1]:
        return None
    y = [np.log(point["bytes_of_each_later_frame"]) for point in points]
    return round(float(np.exp(np.interp(aim, x, y))))


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--cameras", type=int, default=9)
    parser.add_argument("--size", default="128x96")
    parser.add_argument("--quality", type=int, default=60)
    parser.add_argument("--prices", default="0.25,1,4", help="two at least")
    parser.add_argument("--effort", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    width, height = map(int, options.size.split("x"))
    prices = [float(price) for price in options.prices.split(",")]
    scene = analytic(frames=options.frames, cameras=options.cameras, size=(width, height))
    pictures = [scene.frame(number) for number in range(options.frames)]
    fitting = Fitting.of(options.effort, width * height)
    # What is compiled at the first use counts for no row.
    row(scene, pictures[:2], replace(fitting, steps=2, epochs=1), options.quality)
    result: dict[str, Any] = {
        **origin(),
        "frames": options.frames,
        "cameras": options.cameras,
        "size": options.size,
        "quality": options.quality,
        "effort": options.effort,
        "rows": {},
        "at_equal_decibels": {},
    }
    for name, gating in ROWS.items():
        points = result["rows"][name] = []
        for price in prices:
            dear = replace(gating, rate=price * gating.rate, sparsity=price * gating.sparsity)
            found = row(scene, pictures, replace(fitting, gating=dear), options.quality)
            points.append({"price": price, **found})
            if options.out:  # minutes each: what there is, is kept
                options.out.write_text(json.dumps(result, indent=1) + "\n")
    for kind in ("decibels", "train_decibels"):
        result["at_equal_decibels"][kind] = [
            {"aim": full[kind]}
            | {name: at_equal(points, kind, full[kind]) for name, points in result["rows"].items()}
            for full in result["rows"]["full"]
        ]
    text = json.dumps(result, indent=1) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()

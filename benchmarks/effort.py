"""What `--effort` saves and takes: bytes, PSNR and seconds of each effort, BD-rate against none.

    python benchmarks/effort.py KODAK [--efforts 0,1,2,4,9] [--every 4] [--model inr] [--out FILE]

Real files of every n-th image at five qualities; one thread; medians of seconds, on the clock and
of the processor: the machine may have had other work. BD-rate is also against AVIF and the default
model without effort, on the same images in the same run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

import codec
from codec.benchmark.anchors import find
from codec.benchmark.provenance import origin
from codec.metrics import bd_rate, psnr
from codec.weights import SHIPPED

QUALITIES = (10, 30, 50, 70, 90)
Encode: TypeAlias = Callable[[Image.Image, float], bytes]


def encoder(model: str, effort: int, seconds: list[tuple[float, float]] | None = None) -> Encode:
    """An encoder of ours that notes how long it took, on the clock and of the processor."""

    def encode(image: Image.Image, quality: float) -> bytes:
        started, busy = time.perf_counter(), time.process_time()
        stream = codec.encode(image, quality=int(quality), model=model, effort=effort)
        if seconds is not None:
            seconds.append((time.perf_counter() - started, time.process_time() - busy))
        return stream

    return encode


def curve(
    images: Sequence[Image.Image],
    qualities: Sequence[float],
    encode: Encode,
    decode: Callable[[bytes], Any],
) -> list[list[float]]:
    """Bits per pixel and PSNR at each quality, means over the images; rates rise."""
    points = []
    for quality in qualities:
        rows = []
        for image in images:
            stream = encode(image, quality)
            decoded = np.asarray(decode(stream))
            pixels = image.width * image.height
            rows.append([8 * len(stream) / pixels, psnr(np.asarray(image), decoded)])
        points.append(np.mean(rows, axis=0).tolist())
    return sorted(points)


def main() -> None:
    """Write one JSON file and print it as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("kodak", type=Path)
    parser.add_argument("--efforts", default="0,1,2,4,9")
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--model", default="iscs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/effort.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(options.kodak.glob("*.png"))[:: options.every]
    images = [Image.open(path).convert("RGB") for path in paths]
    codec.encode(images[0].crop((0, 0, 64, 64)), model=options.model)  # loads kernels and weights
    result = {
        "command": f"python benchmarks/effort.py KODAK --efforts {options.efforts}"
        f" --every {options.every} --model {options.model}",
        **origin(),
        "weights": SHIPPED.find(options.model).sha256,
        "images": [path.name for path in paths],
        "rows": [],
    }
    (avif,), _ = find(["avif_s6"])
    peers = {
        "avif_s6": curve(images, avif.qualities, avif.encode, avif.decode),
        "iscs": curve(images, QUALITIES, encoder("iscs", 0), codec.decode),
    }
    anchor = None
    for effort in map(int, options.efforts.split(",")):
        seconds: list[tuple[float, float]] = []
        points = curve(images, QUALITIES, encoder(options.model, effort, seconds), codec.decode)
        anchor = anchor or points
        clock, processor = np.median(seconds, axis=0)
        row = {
            "effort": effort,
            "bd_rate": round(bd_rate(anchor, points), 2),
            **{f"against_{name}": round(bd_rate(peer, points), 2) for name, peer in peers.items()},
            "encode_seconds": round(float(clock), 2),
            "encode_cpu_seconds": round(float(processor), 2),
            "curve": points,
        }
        result["rows"].append(row)
        print({key: value for key, value in row.items() if key != "curve"}, flush=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

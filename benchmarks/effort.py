"""What `--effort` saves and takes: bytes, PSNR and seconds of each effort, BD-rate against none.

    python benchmarks/effort.py KODAK [--efforts 0,1,2,4,9] [--every 4] [--out FILE]

Real files of every n-th image at five qualities; one thread; medians of the images' seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import codec
from codec.benchmark.provenance import origin
from codec.metrics import bd_rate, psnr
from codec.weights import SHIPPED

QUALITIES = (10, 30, 50, 70, 90)


def main() -> None:
    """Write one JSON file and print it as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("kodak", type=Path)
    parser.add_argument("--efforts", default="0,1,2,4,9")
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/effort.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(options.kodak.glob("*.png"))[:: options.every]
    images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    codec.encode(images[0], effort=1)  # kernels and weights are loaded before anything is timed
    result = {
        "command": f"python benchmarks/effort.py KODAK --efforts {options.efforts}"
        f" --every {options.every}",
        **origin(),
        "weights": SHIPPED.find("iscs").sha256,
        "images": [path.name for path in paths],
        "rows": [],
    }
    anchor = None
    for effort in map(int, options.efforts.split(",")):
        points, seconds = [], []
        for quality in QUALITIES:
            rows = []
            for image in images:
                started = time.perf_counter()
                stream = codec.encode(image, quality=quality, effort=effort)
                seconds.append(time.perf_counter() - started)
                decoded = np.asarray(codec.decode(stream))
                pixels = image.shape[0] * image.shape[1]
                rows.append([8 * len(stream) / pixels, psnr(image, decoded)])
            points.append(np.mean(rows, axis=0).tolist())
        anchor = anchor or points
        row = {
            "effort": effort,
            "bd_rate": round(bd_rate(anchor, points), 2),
            "encode_seconds": round(float(np.median(seconds)), 2),
            "curve": points,
        }
        result["rows"].append(row)
        print({key: value for key, value in row.items() if key != "curve"}, flush=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

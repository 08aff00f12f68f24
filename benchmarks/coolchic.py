"""How `inr` compares with Cool-chic 5's published points, image by image, at one quality.

    python benchmarks/coolchic.py KODAK [--effort 9] [--quality 50] [--every 4] [--out FILE]

A fit takes long, so the file is written after each image, and images that it already has are not
measured again. What is compared is the rate at our PSNR, on a curve through the published points.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.interpolate import PchipInterpolator

import codec
from codec.benchmark.provenance import origin
from codec.metrics import psnr
from codec.weights import SHIPPED

HERE = Path(__file__).parent
PUBLISHED = HERE / "published" / "kodak_coolchic5.json"


def measure(
    path: Path, quality: int, effort: int, points: dict[str, list[float]]
) -> dict[str, Any]:
    """Rate, PSNR and processor time of one image, and how far its rate is from the published."""
    image = Image.open(path).convert("RGB")
    started = time.process_time()
    stream = codec.encode(image, quality=quality, model="inr", effort=effort)
    seconds = time.process_time() - started
    bpp = 8 * len(stream) / (image.width * image.height)
    decibels = psnr(np.asarray(image), np.asarray(codec.decode(stream)))
    logarithm = PchipInterpolator(points["psnr"], np.log(points["bpp"]), extrapolate=False)
    theirs = float(np.exp(logarithm(decibels)))
    return {
        "bytes": len(stream),
        "bpp": round(bpp, 4),
        "psnr": round(decibels, 3),
        "published_bpp": round(theirs, 4),
        "percent": round(100 * (bpp / theirs - 1), 2),
        "encode_cpu_seconds": round(seconds),
    }


def main() -> None:
    """Write one JSON file and print it as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("kodak", type=Path)
    parser.add_argument("--effort", type=int, default=9)
    parser.add_argument("--quality", type=int, default=50)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "coolchic.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    published = json.loads(PUBLISHED.read_text())["images"]
    setting = {
        "command": f"python benchmarks/coolchic.py KODAK --effort {options.effort}"
        f" --quality {options.quality} --every {options.every}",
        "weights": SHIPPED.find("inr").sha256,
    }
    rows: dict[str, dict[str, Any]] = {}
    if options.out.exists():
        before = json.loads(options.out.read_text())
        if all(before[key] == value for key, value in setting.items()):
            rows = before["images"]
    for path in sorted(options.kodak.glob("*.png"))[:: options.every]:
        if path.stem not in rows:
            rows[path.stem] = measure(path, options.quality, options.effort, published[path.stem])
        mean = float(np.mean([row["percent"] for row in rows.values()]))
        result = {**setting, **origin(), "mean_percent": round(mean, 2), "images": rows}
        options.out.write_text(json.dumps(result, indent=1) + "\n")
        print(path.stem, rows[path.stem], f"mean {mean:+.2f} %", flush=True)


if __name__ == "__main__":
    main()

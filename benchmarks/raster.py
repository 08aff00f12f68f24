"""Speed of the rasteriser, in the units in which its work grows.

    python benchmarks/raster.py [--device cuda] [--out benchmarks/results/raster.json] [--rounds 5]

Random ellipses over a picture. An evaluation is one Gaussian in one pixel: of all columns of its
tiles, and of the rows that its box has, which is what the kernels of the CPU compute. Times are
processor time of one thread, because the machine may be shared, and of a GPU those until it is
idle; medians of rounds after one that warms up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from codec.benchmark.provenance import origin
from codec.models.gauss.raster import TILE, rasterize

ROOT = Path(__file__).resolve().parents[1]
CASES = (
    (500, 64, 64),
    (2000, 128, 128),
    (10_000, 256, 192),
    (50_000, 256, 192),
    (50_000, 676, 507),
    (300_000, 1920, 1080),
)
PER_PIXEL = 97  # Gaussians in tiles that a pixel is made to have, about


def scene(count: int, width: int, height: int) -> list[torch.Tensor]:
    """Ellipses of a size that gives every pixel the same number of them."""
    rng = np.random.default_rng(0)
    # Boxes reach 3 deviations and are rounded to tiles.
    side = np.sqrt(PER_PIXEL * width * height / count)
    sigma = max(0.5, (side - TILE) / 5)
    spread = sigma * rng.uniform(0.6, 1.4, (count, 2))
    lean = rng.uniform(-0.5, 0.5, count) / spread.prod(1)
    values = [
        rng.uniform(0, 1, (count, 2)) * [width, height],
        np.stack([spread[:, 0] ** -2, lean, spread[:, 1] ** -2], 1),
        rng.uniform(0, 1, (count, 3)),
        rng.uniform(0.02, 0.3, count),
        rng.uniform(1, 5, count),
    ]
    return [torch.tensor(value, dtype=torch.float32) for value in values]


def seconds(device: torch.device) -> float:
    """A clock of what the device has done."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(
    count: int, width: int, height: int, rounds: int, device: torch.device
) -> dict[str, float]:
    """One row of the result."""
    values = scene(count, width, height)
    given = [value.to(device).requires_grad_() for value in values]
    times: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        begin = seconds(device)
        rgb, alpha = rasterize(*given, width, height)
        middle = seconds(device)
        (rgb.sum() + alpha.sum()).backward()
        times.append((middle - begin, seconds(device) - middle))
    forward, backward = (statistics.median(part[1:]) for part in zip(*times, strict=True))
    on_cpu, _ = rasterize(*(value.requires_grad_() for value in values), width, height)
    boxes = on_cpu.grad_fn.drawn[2].astype(np.int64)
    boxes = boxes[(boxes[:, 0] <= boxes[:, 1]) & (boxes[:, 2] <= boxes[:, 3])]
    columns = boxes[:, 1] // TILE - boxes[:, 0] // TILE + 1
    evaluations = int((TILE * columns * (boxes[:, 3] - boxes[:, 2] + 1)).sum())
    return {
        "gaussians": count,
        "width": width,
        "height": height,
        "evaluations_per_pixel": round(evaluations / (width * height), 1),
        "forward_ms": round(1e3 * forward, 2),
        "backward_ms": round(1e3 * backward, 2),
        "forward_ms_per_million": round(1e9 * forward / evaluations, 2),
        "backward_ms_per_million": round(1e9 * backward / evaluations, 2),
    }


def main() -> None:
    """Measure all cases and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/raster.json")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    found = {
        "command": f"python benchmarks/raster.py --device {device} --rounds {arguments.rounds}",
        **origin(),
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "time": f"{'wall' if on_gpu else 'processor'} time of one thread, binning included",
        "rows": [measure(*case, arguments.rounds, device) for case in CASES],
    }
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["rows"], indent=1))


if __name__ == "__main__":
    main()

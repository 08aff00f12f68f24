"""Seconds to encode and decode one photograph, against CompressAI's mbt2018-mean in the same run.

    python benchmarks/speed.py PHOTO [--models A,B] [--threads 2] [--runs 7]
        [--out benchmarks/results/speed.json]

Loading and process start are left out; entropy coding is in. Networks of CompressAI are untrained
here, which costs the same work; if it cannot be imported, its figures are missing. Medians of the
runs, taken in turn, so that a drift of the machine's speed meets all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import codec
from codec.benchmark.cli import names

MODELS = ("iscs/base", "iscs/small")
QUALITY = 50


def peer(x: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """What to time of CompressAI's mbt2018-mean; nothing if it is not installed."""
    try:
        from compressai.zoo import mbt2018_mean
    except ImportError:
        return {}
    net = mbt2018_mean(quality=4, pretrained=False).eval()
    net.update(force=True)
    with torch.inference_mode():
        made = net.compress(x)

    def decode() -> None:
        with torch.inference_mode():
            net.decompress(made["strings"], made["shape"])

    def encode() -> None:
        with torch.inference_mode():
            net.compress(x)

    return {"mbt2018_mean encode": encode, "mbt2018_mean decode": decode}


def measure(works: dict[str, Callable[[], Any]], runs: int) -> dict[str, dict[str, float]]:
    """Median, least and most seconds of each work; one run of each is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(runs + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {
        name: {"median": statistics.median(s), "min": min(s), "max": max(s)}
        for name, s in seconds.items()
    }


def main() -> None:
    """Print one JSON object, and write it where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--models", type=names, default=MODELS, metavar="A,B")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    with Image.open(options.photo) as opened:
        image = opened.convert("RGB")
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    works: dict[str, Callable[[], Any]] = {}
    sizes = {}
    for name in options.models:
        model = codec.load_model(name, device="cpu")
        stream = model.compress(x, quality=QUALITY)
        sizes[name] = len(stream)
        works[f"{name} encode"] = partial(model.compress, x, quality=QUALITY)
        works[f"{name} decode"] = partial(model.decompress, stream)
    times = measure(works | peer(x), options.runs)
    ratios = {
        name: times[f"{name} decode"]["median"] / times["mbt2018_mean decode"]["median"]
        for name in options.models
        if "mbt2018_mean decode" in times
    }
    result = {
        "photo": options.photo.name,
        "size": list(image.size),
        "quality": QUALITY,
        "bytes": sizes,
        "threads": options.threads,
        "runs": options.runs,
        "machine": platform.machine(),
        "torch": torch.__version__,
        "codec": codec.__version__,
        "seconds": times,
        "decode_ratios": ratios,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()

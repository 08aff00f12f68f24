"""Seconds to encode and decode one photograph, against CompressAI's mbt2018-mean in the same run.

    python benchmarks/speed.py PHOTO [--threads 2] [--runs 7] [--out benchmarks/results/speed.json]

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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import codec

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

    return {"mbt2018_mean_encode": encode, "mbt2018_mean_decode": decode}


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
    parser.add_argument("--model", default="iscs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    with Image.open(options.photo) as opened:
        image = opened.convert("RGB")
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    model = codec.load_model(options.model, device="cpu")
    stream = model.compress(x, quality=QUALITY)
    works: dict[str, Callable[[], Any]] = {
        "codec_encode": lambda: model.compress(x, quality=QUALITY),
        "codec_decode": lambda: model.decompress(stream),
    }
    times = measure(works | peer(x), options.runs)
    decoded = times.get("mbt2018_mean_decode")
    result = {
        "photo": options.photo.name,
        "size": list(image.size),
        "quality": QUALITY,
        "bytes": len(stream),
        "threads": options.threads,
        "runs": options.runs,
        "machine": platform.machine(),
        "torch": torch.__version__,
        "codec": codec.__version__,
        "seconds": times,
        "decode_ratio": times["codec_decode"]["median"] / decoded["median"] if decoded else None,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()

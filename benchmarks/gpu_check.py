"""Whether a GPU gives the symbols of the CPU, and its pixels within a level: vectors and pictures.

    python benchmarks/gpu_check.py [PICTURE ...] [--qualities 10,50,90]
        [--out benchmarks/results/gpu_check.json]

Every golden vector of a picture whose weights are here, and every picture at every quality, or
stream of one (`.bin`), is decoded as `codec decode --device` does it, by both. Ends with status 1
if a symbol differs or a sample is more than a level away.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import codec
from codec.api import DecodeOptions, decode_stream
from codec.benchmark.provenance import origin
from codec.bitstream import Kind, peek
from codec.errors import ModelError
from codec.progress import Stopwatch
from codec.weights import SHIPPED, Zoo

VECTORS = Path(__file__).resolve().parents[1] / "tests/vectors/v1"


def compared(stream: bytes, zoo: Zoo) -> dict[str, Any]:
    """Whether the symbols of both are equal, and by how many levels samples differ at most."""
    ways = [
        decode_stream(stream, DecodeOptions(device=device, zoo=zoo), watch=Stopwatch())
        for device in ("cpu", "cuda")
    ]
    cpu, gpu = (way.picture.to_array().astype(int) for way in ways)
    return {
        "symbols_equal": ways[0].symbols_sha256 == ways[1].symbols_sha256,
        "levels": int(np.abs(cpu - gpu).max()),
    }


def main() -> None:
    """Print a row for each file; write one JSON object where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("pictures", type=Path, nargs="*", metavar="PICTURE")
    parser.add_argument("--qualities", default="10,50,90")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    files: dict[str, dict[str, Any]] = {}

    def check(name: str, stream: bytes, zoo: Zoo) -> None:
        files[name] = compared(stream, zoo)
        print(name, files[name], flush=True)

    for path in sorted(VECTORS.glob("*/*.bin")):
        zoo = Zoo(path.parent) if (path.parent / "manifest.json").exists() else SHIPPED
        stream = path.read_bytes()
        if peek(stream).kind == Kind.IMAGE:
            try:
                check(f"{path.parent.name}/{path.stem}", stream, zoo)
            except ModelError as error:
                print(path.stem, "left out:", error)
    for picture in options.pictures:
        if picture.suffix == ".bin":
            check(picture.name, picture.read_bytes(), SHIPPED)
            continue
        for quality in map(int, options.qualities.split(",")):
            stream = codec.encode(picture, quality=quality, device="cpu")
            check(f"{picture.name} q{quality}", stream, SHIPPED)
    wrong = [name for name, row in files.items() if not row["symbols_equal"] or row["levels"] > 1]
    result = {
        **origin(),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "files": files,
        "wrong": wrong,
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""Decode all golden streams under other threads, kernels, versions of torch and devices.

    python benchmarks/determinism.py [--python OTHER/bin/python ...]
        [--out benchmarks/results/determinism.json]

Every way is a process of its own, which compares with the files beside the streams: symbols must be
equal, pixels may be one level of 255 apart. A GPU takes part where there is one. `--python` names
further interpreters, with other versions of torch, that have the package's dependencies.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from codec.benchmark.provenance import origin

ROOT = Path(__file__).resolve().parents[1]
VECTORS = ROOT / "tests/vectors/v1"
CHILD = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from PIL import Image
from codec.api import DecodeOptions, decode_stream, open_scene, open_video
from codec.bitstream import Kind, peek
from codec.progress import Stopwatch
from codec.weights import SHIPPED, Zoo

folder, threads, onednn, device = sys.argv[1:]
torch.set_num_threads(int(threads))
torch.backends.mkldnn.enabled = onednn == "True"
found = {}
for path in sorted(Path(folder).glob("*/*.bin")):
    if device == "cuda" and not torch.cuda.is_available():
        break
    # A family that ships no weights has small ones beside its vectors.
    zoo = Zoo(path.parent) if (path.parent / "manifest.json").exists() else SHIPPED
    options = DecodeOptions(device=device, zoo=zoo)
    expected = json.loads(path.with_suffix(".json").read_text())["symbols_sha256"]
    stream = path.read_bytes()
    if peek(stream).kind == Kind.VIDEO:
        opened = open_video(stream, options, watch=Stopwatch())
        own = np.stack(list(opened.frames)).astype(float)
        symbols = opened.digest.hexdigest()
        pixels = np.load(path.with_suffix(".npz"))["frames"].astype(float)
    elif peek(stream).kind == Kind.SCENE:
        opened = open_scene(stream, options, watch=Stopwatch())
        own = np.concatenate([f.ravel() for one in opened.frames for f in vars(one).values()])
        symbols = opened.digest.hexdigest()
        pixels = np.concatenate([f.ravel() for f in np.load(path.with_suffix(".npz")).values()])
    else:
        decoded = decode_stream(stream, options, watch=Stopwatch())
        own, symbols = np.asarray(decoded.picture.to_image(), float), decoded.symbols_sha256
        with Image.open(path.with_suffix(".png")) as reference:
            pixels = np.asarray(reference, float)
    apart = int(np.abs(own - pixels).max())
    found[f"{path.parent.name}/{path.stem}"] = [symbols == expected, apart]
print(json.dumps([torch.__version__, found]))
"""


class Way(NamedTuple):
    """How to decode."""

    name: str
    threads: int = 1
    onednn: bool = True
    device: str = "cpu"
    environment: tuple[tuple[str, str], ...] = ()


OLD = (  # the kernels of a processor without AVX in oneDNN, torch, OpenBLAS and numba
    ("ONEDNN_MAX_CPU_ISA", "SSE41"),
    ("ATEN_CPU_CAPABILITY", "default"),
    ("OPENBLAS_CORETYPE", "PRESCOTT"),
    ("NUMBA_CPU_NAME", "generic"),
)
WAYS = (
    Way("1 thread", environment=(("OMP_NUM_THREADS", "1"),)),
    Way("2 threads", threads=2, environment=(("OMP_NUM_THREADS", "2"),)),
    Way("8 threads", threads=8, environment=(("OMP_NUM_THREADS", "8"),)),
    Way("MKL_CBWR=COMPATIBLE", environment=(("MKL_CBWR", "COMPATIBLE"),)),
    Way("without oneDNN", onednn=False),
    Way("kernels of an old processor", environment=OLD),
    Way("CUDA", device="cuda"),
)


def decode(python: str, way: Way) -> tuple[str, dict[str, tuple[bool, int]]]:
    """Version of torch; of each vector, whether symbols are equal and how far pixels are apart."""
    words = [str(VECTORS), str(way.threads), str(way.onednn), way.device]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **dict(way.environment)}
    done = subprocess.run(
        [python, "-c", CHILD, *words], env=environment, capture_output=True, text=True, check=True
    )
    version, found = json.loads(done.stdout)
    return version, found


def main() -> None:
    """Decode, print a table, write JSON; the exit code says whether all agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--python", nargs="*", default=[], metavar="PATH")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/determinism.json")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(f"{'torch':14} {'way':28} {'symbols equal':>14} {'largest difference':>19}")
    for python in (sys.executable, *options.python):
        for way in WAYS:
            version, found = decode(python, way)
            if not found:
                print(f"{version:14} {way.name:28} {'absent':>14}")
                continue
            equal = sum(same for same, _ in found.values())
            apart = max(apart for _, apart in found.values())
            print(
                f"{version:14} {way.name:28} {equal:>8} of {len(found):2} {apart:>19}", flush=True
            )
            rows.append(
                {
                    "torch": version,
                    "way": way.name,
                    "vectors": len(found),
                    "symbols_equal": equal,
                    "largest_difference": apart,
                }
            )
    result = {
        "command": "python benchmarks/determinism.py" + " --python PATH" * bool(options.python),
        **origin(),
        "ways": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(
        any(row["symbols_equal"] < row["vectors"] or row["largest_difference"] > 1 for row in rows)
    )


if __name__ == "__main__":
    main()

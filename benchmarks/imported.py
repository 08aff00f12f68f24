"""Imported networks against CompressAI itself: pixels, bytes, seconds, and streams that are cut.

    python benchmarks/imported.py PHOTO... --checkpoint mbt2018-mean=FILE ...
        [--runs 5] [--out benchmarks/results/compressai.json]

Both get the same checkpoint and the same photographs, of sides that 64 divides: beyond those,
CompressAI leaves padding to its caller. One thread. Decoding is timed in turn, so that a drift of
the machine's speed meets both; entropy coding is in, loading is not. Bytes are those of our whole
file, and of CompressAI's strings alone, which it has no file format for. Streams are cut to shares
of their length, of CompressAI's the string of y; each of its decoders runs in a process of its own,
because it may take the process with it. (Not called compressai.py, which every benchmark here would
import in place of the package.)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compressai.models import FactorizedPrior, MeanScaleHyperprior, ScaleHyperprior
from PIL import Image
from torch import Tensor, nn

import codec
from codec.benchmark.provenance import commit, libraries, machine, today
from codec.engine import Model
from codec.errors import CodecError
from codec.importing import add_weights, read_checkpoint
from codec.weights import Zoo

PEERS = {
    "bmshj2018-factorized": FactorizedPrior,
    "bmshj2018-hyperprior": ScaleHyperprior,
    "mbt2018-mean": MeanScaleHyperprior,
}
SHARES = (0.0, 0.1, 0.5, 0.9, 0.99, 0.999)
PATIENCE = 120.0  # seconds that a decoder of a cut stream may take


def peer_of(arch: str, checkpoint: Path) -> nn.Module:
    """CompressAI's network with these weights and its tables."""
    loaded = torch.load(checkpoint, map_location="cpu", weights_only=True)
    net = PEERS[arch].from_state_dict(loaded.get("state_dict", loaded)).eval()
    net.update(force=True)
    return net


def ours_of(arch: str, checkpoint: Path) -> Model:
    """The same weights, imported."""
    with tempfile.TemporaryDirectory() as folder:
        frozen = read_checkpoint(str(checkpoint), arch)
        add_weights(frozen, Path(folder) / "peer.safetensors", checkpoint.name)
        return codec.load_model("compressai", device="cpu", zoo=Zoo(Path(folder)))


def read(photo: Path) -> Tensor:
    """A photograph, `(1, 3, H, W)` in [0, 1]."""
    with Image.open(photo) as opened:
        image = np.array(opened.convert("RGB"))
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def seconds(works: Sequence[Callable[[], object]], runs: int) -> list[list[float]]:
    """Seconds of each work, run in turn; the first turn is not counted."""
    found: list[list[float]] = [[] for _ in works]
    for number in range(runs + 1):
        for work, times in zip(works, found, strict=True):
            started = time.perf_counter()
            work()
            if number:
                times.append(time.perf_counter() - started)
    return found


def psnr(x: Tensor, x_hat: Tensor) -> float:
    """Of two tensors in [0, 1], dB."""
    return float(-10 * torch.log10((x - x_hat).square().mean()))


def compare(model: Model, net: nn.Module, photo: Path, runs: int) -> dict[str, Any]:
    """What both make of a photograph."""
    x = read(photo)
    made = net.compress(x)
    stream = model.compress(x)
    x_hat = model.decompress(stream)
    expected = net.decompress(made["strings"], made["shape"])["x_hat"].clamp(0, 1)
    size = sum(len(string) for strings in made["strings"] for string in strings)
    ours, theirs = seconds(
        (
            lambda: model.decompress(stream),
            lambda: net.decompress(made["strings"], made["shape"]),
        ),
        runs,
    )
    return {
        "photo": photo.name,
        "psnr": psnr(x, x_hat),
        "bpp": 8 * len(stream) / (x.shape[2] * x.shape[3]),
        "max_abs_diff": float((x_hat - expected).abs().max()),
        "bytes": len(stream),
        "peer_bytes": size,
        "rate_ratio": len(stream) / size,
        "decode_s": ours,
        "peer_decode_s": theirs,
        "decode_speedup": statistics.median(theirs) / statistics.median(ours),
    }


def cut(model: Model, net: nn.Module, photo: Path) -> list[dict[str, Any]]:
    """What both do with the first part of a stream."""
    x = read(photo)
    stream, made = model.compress(x), net.compress(x)
    expected = net.decompress(made["strings"], made["shape"])["x_hat"]
    rows = []
    for share in SHARES:
        try:
            model.decompress(stream[: int(share * len(stream))])
            ours = "decoded"
        except CodecError as error:
            ours = f"refused: {error}"
        y = made["strings"][0][0]
        strings = [[y[: int(share * len(y))]], *made["strings"][1:]]
        rows.append({"share": share, "ours": ours, "peer": apart(net, strings, made, expected)})
    return rows


def apart(net: nn.Module, strings: object, made: dict[str, Any], expected: Tensor) -> str:
    """What becomes of CompressAI's decoder, in a process of its own."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=attempt, args=(net, strings, made["shape"], expected, sender))
    process.start()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
        return f"does not end within {PATIENCE:.0f} s"
    if process.exitcode:
        return f"crash: signal {-process.exitcode}"
    return str(receiver.recv())


def attempt(
    net: nn.Module, strings: object, shape: object, expected: Tensor, sender: Connection
) -> None:
    """Decode, and say what came out."""
    try:
        with torch.inference_mode():
            x_hat = net.decompress(strings, shape)["x_hat"]
    except Exception as error:  # which one is what is asked
        sender.send(f"exception: {type(error).__name__}")
        return
    # What is read beyond the string's end may be anything, and pixels not even numbers.
    difference = (torch.nan_to_num(x_hat).clamp(0, 1) - expected.clamp(0, 1)).abs()
    wrong = float((difference.amax(1) > 0.5 / 255).float().mean())
    sender.send(f"no error: {100 * wrong:.1f} % of pixels wrong, by up to {difference.max():.3g}")


def main() -> None:
    """Print one JSON object, and write it where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--checkpoint", action="append", required=True, metavar="ARCH=FILE")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    result: dict[str, Any] = {
        "commit": commit(),
        "date": today(),
        "machine": machine(),
        "load_before": round(os.getloadavg()[0], 2),
        "libraries": libraries() | {"compressai": version("compressai")},
        "threads": 1,
        "runs": options.runs,
        "architectures": {},
    }
    for given in options.checkpoint:
        arch, _, name = given.partition("=")
        checkpoint = Path(name)
        model, net = ours_of(arch, checkpoint), peer_of(arch, checkpoint)
        with torch.inference_mode():
            rows = [compare(model, net, photo, options.runs) for photo in options.photos]
            result["architectures"][arch] = {
                "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
                "N": net.N,
                "M": net.M,
                "max_abs_diff": max(row["max_abs_diff"] for row in rows),
                "rate_ratio": sum(r["bytes"] for r in rows) / sum(r["peer_bytes"] for r in rows),
                "decode_speedup": statistics.median(row["decode_speedup"] for row in rows),
                "photos": rows,
                "cut": cut(model, net, options.photos[0]),
            }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()

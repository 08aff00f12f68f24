"""Milliseconds of each stage of decoding `iscs`, and of rANS by a GPU and by the CPU.

    python benchmarks/gpu.py PHOTO [--device cuda] [--sizes 768x512,1920x1080,3840x2160]
        [--batches 1,8] [--model iscs] [--lanes N] [--streams 1,16,128] [--runs 5]
        [--out benchmarks/results/gpu.json]

Needs no network and fits in five minutes. The photo is mirrored or cut to each size. A stage ends
when the device is idle, so their sum is above the time of the whole, which is measured as well.
With `--device cpu` it rehearses itself, also with small sizes. Triton's interpreter
(`TRITON_INTERPRET=1`) is for trying this script out: its milliseconds of rANS mean nothing.

rANS by the device is compared with what was encoded, and ends the run if one symbol differs.
Ceilings are measured here: bytes copied on the device, and multiplications of a large matrix.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import codec
from codec.benchmark.provenance import origin
from codec.bitstream import unpack, unpack_streams
from codec.entropy import Decoder, Encoder, IntArray, Method, Tables, gaussian_tables
from codec.entropy.batch import AbstractBatch, AbstractBatchStream
from codec.entropy.device import DeviceDecoder, RansBatch
from codec.errors import BitstreamError
from codec.models.base import AbstractFamily
from codec.tiling import geometry_of

QUALITY = 60
SYMBOLS = 200_000  # of each stream of the comparison of both rANS decoders, as of a 1080p picture
SCALES = np.exp(np.linspace(np.log(0.11), np.log(64), 64))
LANES = (32, 256, 1024)
PIXELS_MAX = 1 << 27  # of a batch: more would take minutes
PEER_RUNS = 2


def mirrored(photo: np.ndarray[Any, Any], width: int, height: int) -> np.ndarray[Any, Any]:
    """The photo `(H, W, 3)`, repeated in mirrors where it is too small."""
    missing = [(0, max(0, height - photo.shape[0])), (0, max(0, width - photo.shape[1])), (0, 0)]
    return np.ascontiguousarray(np.pad(photo, missing, mode="symmetric")[:height, :width])


class TimedDecoder(AbstractBatch):
    """A decoder of several pictures that adds up the milliseconds in which it decodes."""

    def __init__(self, decoder: DeviceDecoder, idle: Callable[[], float]) -> None:
        self.decoder, self.idle, self.ms = decoder, idle, 0.0
        self.count, self.device = decoder.count, decoder.device

    def open(self, name: str, method: Method) -> AbstractBatchStream:
        """See `AbstractBatch.open`."""
        return TimedStream(self.decoder.open(name, method), self)


class TimedStream(AbstractBatchStream):
    """One of its streams."""

    def __init__(self, stream: AbstractBatchStream, batch: TimedDecoder) -> None:
        self.stream, self.batch = stream, batch

    def code(
        self, symbols: Tensor | None, tables: Tables, indexes: Tensor, where: Tensor
    ) -> Tensor:
        """See `AbstractBatchStream.code`."""
        started = self.batch.idle()
        found = self.stream.code(symbols, tables, indexes, where)
        self.batch.ms += 1000 * (self.batch.idle() - started)
        return found


class Bench:
    """Medians of runs on one device, which is idle at both ends of what is timed."""

    def __init__(self, device: torch.device, runs: int) -> None:
        self.device, self.runs = device, runs

    def idle(self) -> float:
        """Wait for the device; seconds now."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def ms(self, work: Callable[[], Any]) -> float:
        """Milliseconds of the work; the first run is not counted."""
        found = []
        for _ in range(self.runs + 1):
            started = self.idle()
            work()
            found.append(1000 * (self.idle() - started))
        return statistics.median(found[1:])

    def stages(
        self, streams: list[bytes], family: AbstractFamily, *, kernel: bool
    ) -> dict[str, float]:
        """Milliseconds of each stage of decoding all streams side by side.

        Seams between tiles are left out: each is drawn without its neighbours.
        """
        totals: dict[str, list[float]] = defaultdict(list)
        for _ in range(self.runs + 1):
            for name, value in self._once(streams, family, kernel).items():
                totals[name].append(value)
        return {name: round(statistics.median(each[1:]), 3) for name, each in totals.items()}

    @torch.inference_mode()
    def _once(self, streams: list[bytes], family: AbstractFamily, kernel: bool) -> dict[str, float]:
        ms: dict[str, float] = defaultdict(float)

        def timed(name: str, work: Callable[[], Any]) -> Any:
            started = self.idle()
            found = work()
            ms[name] += 1000 * (self.idle() - started)
            return found

        containers = timed("parse", lambda: [unpack(stream) for stream in streams])
        for number in range(containers[0].header.tiles):
            geometry = geometry_of(containers[0].header, number)
            payloads = timed(
                "parse",
                lambda n=number: [unpack_streams(c.tiles[n], family.streams) for c in containers],
            )
            coder = TimedDecoder(DeviceDecoder(payloads, self.device, kernel=kernel), self.idle)
            symbols = timed("integer networks", partial(family.traverse_batch, coder, geometry))
            ms["integer networks"] -= coder.ms
            ms["entropy"] += coder.ms
            latents = timed("context", partial(family.dequantise_batch, symbols, geometry))
            x_hat = timed("synthesis", partial(family.synthesise, latents, geometry.quality))
            levels = timed("levels", lambda x=x_hat: (x.clamp(0, 1) * 255).round().byte())
            timed("download", levels.cpu)
        return ms


def moved(stream: bytes, device: str) -> dict[str, float]:
    """What half precision does to a picture: the most levels of 255, the share of samples."""
    whole, half = (codec.decode_batch([stream], device=device, half=half) for half in (False, True))
    levels = ((whole - half).abs() * 255).round()
    return {"levels": int(levels.max()), "share": float((levels > 0).float().mean())}


def pictures(
    bench: Bench,
    photo: Any,
    sizes: list[tuple[int, int]],
    batches: list[int],
    model: str,
    lanes: int | None,
) -> Any:
    """Stages, and the whole, of each size and batch."""
    rows = []
    for width, height in sizes:
        stream = codec.encode(
            mirrored(photo, width, height), quality=QUALITY, model=model, lanes=lanes
        )
        for batch in batches:
            if batch * width * height > PIXELS_MAX:
                continue
            streams = [stream] * batch
            whole = {
                name: bench.ms(
                    partial(codec.decode_batch, streams, device=str(bench.device), half=half)
                )
                for name, half in (("float32", False), ("float16", True))
            }
            half = codec.load_model(model, device=str(bench.device)).family.halved()
            rows.append(
                {
                    "size": [width, height],
                    "batch": batch,
                    "bytes": len(stream),
                    "stages_ms": {
                        name: bench.stages(streams, half, kernel=kernel)
                        for name, kernel in (("rans on the device", True), ("rans on cores", False))
                        if kernel is False or bench.device.type == "cuda"
                    },
                    "half": moved(stream, str(bench.device)),
                    "whole_ms": whole,
                    "pictures_per_second": {
                        name: round(1000 * batch / value, 1) for name, value in whole.items()
                    },
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def read_on_device(streams: list[bytes], tables: Tables, indexes: torch.Tensor) -> torch.Tensor:
    """The symbols of streams of as many symbols each, all together."""
    batch = RansBatch(streams, indexes.device)
    found = batch.code(tables, indexes, [len(indexes) // len(streams)] * len(streams))
    batch.finish()
    return found


def read_on_cpu(streams: list[bytes], tables: Tables, indexes: IntArray) -> None:
    """The same of the CPU's decoder, one after the other."""
    for stream in streams:
        decoder = Decoder({"y": stream})
        decoder.open("y", Method.RANS).code(None, tables, indexes)
        decoder.finish()


def rans(bench: Bench, counts: list[int]) -> Any:
    """Milliseconds for some streams of many symbols, by lanes; and what the lanes cost."""
    generator = np.random.default_rng(5)
    symbols_each = SYMBOLS if bench.device.type == "cuda" else 2000
    tables = gaussian_tables(SCALES, 16)
    indexes = generator.integers(0, len(SCALES), symbols_each).astype(np.int32)
    symbols = np.rint(generator.normal(0, SCALES[indexes])).astype(np.int32)
    rows = []
    for lanes in LANES:
        encoder = Encoder(lanes)
        encoder.open("y", Method.RANS).code(symbols, tables, indexes)
        stream = encoder.finish()["y"]
        for count in counts:
            every = torch.from_numpy(np.tile(indexes, count)).to(bench.device)
            on_device = partial(read_on_device, [stream] * count, tables, every)
            found = on_device().cpu().numpy()
            if not np.array_equal(found, np.tile(symbols, count)):
                raise BitstreamError("the device decodes other symbols than were encoded")
            row = {
                "lanes": lanes,
                "streams": count,
                "symbols": symbols_each,
                "bytes": len(stream),
                "device_ms": bench.ms(on_device),
                "cpu_ms": bench.ms(partial(read_on_cpu, [stream] * count, tables, indexes)),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def ceilings(bench: Bench) -> dict[str, float]:
    """GB/s of a copy (read and written), and 10^12 multiplications a second in half precision."""
    big = bench.device.type == "cuda"
    a = torch.empty(2**28 if big else 2**22, dtype=torch.uint8, device=bench.device)
    side = 8192 if big else 512
    m = torch.randn(side, side, device=bench.device).half()
    copied = bench.ms(partial(torch.empty_like(a).copy_, a))
    return {
        "copy_gb_s": 2 * len(a) / copied / 1e6,
        "matmul_tmac_s": side**3 / bench.ms(partial(torch.mm, m, m)) / 1e9,
    }


def peer(bench: Bench, photo: Any, sizes: list[tuple[int, int]]) -> Any:
    """Milliseconds of CompressAI's mbt2018-mean, untrained; None if it is not installed."""
    try:
        from compressai.zoo import mbt2018_mean
    except ImportError:
        return None
    net = mbt2018_mean(quality=4, pretrained=False).eval()
    net.update(force=True)
    net.to(bench.device)
    bench = Bench(bench.device, PEER_RUNS)
    rows = {}
    for width, height in sizes:
        array = mirrored(photo, -(-width // 64) * 64, -(-height // 64) * 64)
        x = torch.from_numpy(array).to(bench.device).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            made = net.compress(x)
            rows[f"{width}x{height}"] = bench.ms(
                partial(net.decompress, made["strings"], made["shape"])
            )
    return rows


def main() -> None:
    """Print rows as they come; write one JSON object where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", default="768x512,1920x1080,3840x2160")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--model", default="iscs")
    parser.add_argument(
        "--lanes", type=int, help="of the pictures' streams; as encoded if not given"
    )
    parser.add_argument("--streams", default="1,16,128")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sizes = [tuple(map(int, size.split("x"))) for size in options.sizes.split(",")]
    batches, counts = (
        list(map(int, given.split(","))) for given in (options.batches, options.streams)
    )
    bench = Bench(torch.device(options.device), options.runs)
    with Image.open(options.photo) as opened:
        photo = np.array(opened.convert("RGB"))
    name = "cpu"
    if bench.device.type == "cuda":
        name = torch.cuda.get_device_name(bench.device)
    result = {
        "origin": origin(),
        "device": name,
        "torch": torch.__version__,
        "photo": options.photo.name,
        "quality": QUALITY,
        "model": options.model,
        "lanes": options.lanes,
        "runs": options.runs,
        "ceilings": ceilings(bench),
        "rans": rans(bench, counts),
        "pictures": pictures(bench, photo, sizes, batches, options.model, options.lanes),
        "mbt2018_mean_ms": peer(bench, photo, sizes),
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

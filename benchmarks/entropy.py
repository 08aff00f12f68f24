"""Speed and size of the entropy coders, next to CompressAI's and constriction's, in one run.

    python benchmarks/entropy.py [--out benchmarks/results/entropy.json] [--rounds 9]

A million Gaussian symbols over 64 scales from 0.11 to 64. All contenders code the same symbols on
one thread; times are its processor time, because the machine may be shared. One round warms
up, later ones are interleaved, and ratios are medians of the ratios within a round.

CompressAI takes part where it can be imported and is reported absent elsewhere. It is measured
twice: as it is used (`GaussianConditional.compress` and `decompress`, tensors to bytes to tensors,
as the others turn arrays to bytes to arrays), and its C++ call alone, which takes and gives lists
that somebody else has made.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import constriction
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from codec.entropy import BitCounter, Decoder, Encoder, IntArray, Method, Tables, gaussian_tables

ROOT = Path(__file__).resolve().parents[1]
COUNT = 10**6
SCALES = np.exp(np.linspace(np.log(0.11), np.log(64), 64))
PEERS = ("compressai", "compressai, C++ call alone", "constriction, a Gaussian each")
PACKAGES = ("compressai", "constriction", "numba", "numpy", "scipy")


class Contender(NamedTuple):
    """`encode` gives what `decode` takes; `size` is that in bytes; `restore` makes it symbols."""

    encode: Callable[[], Any]
    decode: Callable[[Any], Any]
    size: Callable[[Any], int]
    restore: Callable[[Any], IntArray]


def ours(method: Method, symbols: IntArray, tables: Tables, indexes: IntArray) -> Contender:
    """Our coder."""

    def encode() -> Any:
        coder = Encoder()
        coder.open("y", method).code(symbols, tables, indexes)
        return coder.finish()

    def decode(streams: Any) -> Any:
        coder = Decoder(streams)
        found = coder.open("y", method).code(None, tables, indexes)
        coder.finish()
        return found

    return Contender(encode, decode, lambda streams: len(streams["y"]), np.asarray)


def gaussians(symbols: IntArray, indexes: IntArray) -> Contender:
    """Range coder of constriction, with a Gaussian of its own for every symbol."""
    reach = int(np.abs(symbols).max()) + 1
    family = constriction.stream.model.QuantizedGaussian(-reach, reach)
    means, scales = np.zeros(len(indexes)), SCALES[indexes]

    def encode() -> Any:
        coder = constriction.stream.queue.RangeEncoder()
        coder.encode(symbols, family, means, scales)
        return coder.get_compressed()

    def decode(words: Any) -> Any:
        return constriction.stream.queue.RangeDecoder(words).decode(family, means, scales)

    return Contender(encode, decode, lambda words: 4 * len(words), np.asarray)


def compressai(symbols: IntArray, indexes: IntArray) -> dict[str, Contender]:
    """CompressAI's rANS with its own 16-bit tables, twice; nothing where it is not installed."""
    try:
        import torch
        from compressai.ans import RansDecoder, RansEncoder
        from compressai.entropy_models import GaussianConditional
    except ImportError:
        return {}
    torch.set_num_threads(1)
    model = GaussianConditional(SCALES.tolist())
    model.update()
    y = torch.from_numpy(symbols).float().reshape(1, 1, 1000, -1)
    table_of_y = torch.from_numpy(indexes).reshape(1, 1, 1000, -1)
    tables = (
        model.quantized_cdf.tolist(),
        model.cdf_length.reshape(-1).int().tolist(),
        model.offset.reshape(-1).int().tolist(),
    )
    symbol_list, index_list = symbols.tolist(), indexes.tolist()
    as_used = Contender(
        encode=lambda: model.compress(y, table_of_y),
        decode=lambda strings: model.decompress(strings, table_of_y),
        size=lambda strings: len(strings[0]),
        restore=lambda found: found.int().numpy().reshape(-1),
    )
    native = Contender(
        encode=lambda: RansEncoder().encode_with_indexes(symbol_list, index_list, *tables),
        decode=lambda stream: RansDecoder().decode_with_indexes(stream, index_list, *tables),
        size=len,
        restore=lambda found: np.array(found, np.int32),
    )
    return {"compressai": as_used, "compressai, C++ call alone": native}


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time of a call, and its result."""
    begin = time.thread_time()
    result = call()
    return time.thread_time() - begin, result


def measure(contenders: dict[str, Contender], symbols: IntArray, rounds: int) -> dict[str, Any]:
    """Seconds of every contender in every round after one to warm up; checks what they decode."""
    times: dict[str, dict[str, list[float]]] = {
        name: {"encode": [], "decode": []} for name in contenders
    }
    sizes = {}
    for turn in range(rounds + 1):
        for name, contender in contenders.items():
            encode_s, stream = seconds(contender.encode)
            decode_s, found = seconds(lambda c=contender, s=stream: c.decode(s))
            sizes[name] = contender.size(stream)
            if not np.array_equal(contender.restore(found), symbols):
                raise RuntimeError(f"{name} did not decode what it encoded")
            if turn:
                times[name]["encode"].append(encode_s)
                times[name]["decode"].append(decode_s)
    return {
        name: {
            "bytes": sizes[name],
            **{f"{way}_msym_s": summary([COUNT / 1e6 / t for t in both[way]]) for way in both},
            "times_faster_than": {
                f"{peer}, {way}": round(
                    statistics.median(
                        theirs / own
                        for theirs, own in zip(times[peer][way], both[way], strict=True)
                    ),
                    2,
                )
                for peer in times
                if peer in PEERS
                for way in both
            },
        }
        for name, both in times.items()
    }


def summary(values: list[float]) -> dict[str, float]:
    """Median and extremes."""
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def ideal_bits(symbols: IntArray, indexes: IntArray) -> float:
    """-log2 of the probabilities of the true Gaussians, in all."""
    distance, scales = np.abs(symbols), SCALES[indexes]
    inside: NDArray[np.float64] = ndtr((0.5 - distance) / scales) - ndtr((-0.5 - distance) / scales)
    return float(-np.log2(inside).sum())


def provenance(arguments: list[str]) -> dict[str, Any]:
    """Where the numbers come from."""
    installed = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    cpus = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "command": " ".join(["python", "benchmarks/entropy.py", *arguments]),
        "commit": commit.stdout.strip(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "threads": 1,
        "python": platform.python_version(),
        "packages": {name: installed.get(name, "absent") for name in PACKAGES},
    }


def main(arguments: list[str]) -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/entropy.json")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args(arguments)

    head = provenance(arguments)
    generator = np.random.default_rng(1)
    indexes = generator.integers(0, len(SCALES), COUNT).astype(np.int32)
    symbols = np.rint(generator.normal(0, SCALES[indexes])).astype(np.int32)
    tables = gaussian_tables(SCALES, precision=16)
    counter = BitCounter()
    counter.open("y", Method.RANS).code(symbols, tables, indexes)
    ideal = ideal_bits(symbols, indexes) / 8

    contenders = {
        "rans": ours(Method.RANS, symbols, tables, indexes),
        "range": ours(Method.RANGE, symbols, tables, indexes),
        "constriction, a Gaussian each": gaussians(symbols, indexes),
    }
    contenders |= compressai(symbols, indexes)
    results = measure(contenders, symbols, options.rounds)

    report = {
        **head,
        "rounds": options.rounds,
        "symbols": COUNT,
        "ideal_bytes": round(ideal),
        "counter_bytes": round(counter.bits / 8),
        "contenders": results,
        "absent": [name for name in PEERS if name not in contenders],
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, row in results.items():
        print(f"{name:36}", json.dumps(row))
    print(f"ideal {ideal:.0f} bytes, counter {counter.bits / 8:.0f}, absent: {report['absent']}")


if __name__ == "__main__":
    main(sys.argv[1:])

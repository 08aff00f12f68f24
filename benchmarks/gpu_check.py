"""Whether the Triton kernel gives the symbols of the CPU, for golden vectors and pictures.

    python benchmarks/gpu_check.py [PICTURE ...] [--device cuda] [--qualities 10,50,90]
        [--out benchmarks/results/gpu_check.json]

Every rANS stream of every tile is decoded by the CPU as the family's walk asks for it; then the
kernel is asked the same, twice side by side. Causal calls (`inr`, `nerv`) have no kernel: streams
with such are counted and left out. Ends with status 1 if a symbol differs.
With `--device cpu` and `TRITON_INTERPRET=1` it runs without a GPU, at a millisecond a round.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import codec
from codec.benchmark.provenance import origin
from codec.bitstream import Kind, peek, unpack, unpack_streams
from codec.engine import model_of
from codec.entropy import (
    AbstractCausalModel,
    AbstractCoder,
    AbstractStream,
    Decoder,
    IntArray,
    Method,
    Tables,
)
from codec.entropy.device import RansBatch
from codec.tiling import geometry_of
from codec.weights import SHIPPED, Zoo

VECTORS = Path(__file__).resolve().parents[1] / "tests/vectors/v1"


class Call(NamedTuple):
    """What a stream was asked, and what it said."""

    tables: Tables
    indexes: IntArray
    symbols: IntArray


class Listener(AbstractStream):
    """A stream of which every call is kept."""

    def __init__(self, stream: AbstractStream) -> None:
        self.stream = stream
        self.calls: list[Call] = []
        self.causal = False

    def code(self, symbols: IntArray | None, tables: Tables, indexes: IntArray) -> IntArray:
        """See `AbstractStream.code`."""
        found = self.stream.code(symbols, tables, indexes)
        self.calls.append(Call(tables, indexes, found))
        return found

    def code_causal(self, symbols: IntArray | None, model: AbstractCausalModel) -> IntArray:
        """See `AbstractStream.code_causal`."""
        self.causal = True
        return self.stream.code_causal(symbols, model)


class ListeningDecoder(AbstractCoder):
    """A decoder whose streams of rANS are listened to."""

    def __init__(self, payloads: dict[str, bytes]) -> None:
        self.decoder = Decoder(payloads)
        self.rans: dict[str, Listener] = {}

    def open(self, name: str, method: Method) -> AbstractStream:
        """See `AbstractCoder.open`."""
        stream = self.decoder.open(name, method)
        if method is not Method.RANS:
            return stream
        self.rans[name] = Listener(stream)
        return self.rans[name]


def differing(stream: bytes, calls: list[Call], device: torch.device) -> int:
    """How many symbols the kernel gives that the CPU does not, of two copies side by side."""
    batch = RansBatch([stream, stream], device)
    found = 0
    for call in calls:
        indexes = torch.from_numpy(np.tile(call.indexes, 2)).to(device)
        symbols = batch.code(call.tables, indexes, [len(call.indexes)] * 2).cpu().numpy()
        found += int((symbols != np.tile(call.symbols, 2)).sum())
    batch.finish()
    return found


def check(stream: bytes, zoo: Zoo, device: torch.device) -> dict[str, int]:
    """Counts of streams, symbols and differences of one file of an image."""
    container = unpack(stream)
    model = model_of(container.header, zoo, "cpu").reading(container)
    counts = {"streams": 0, "causal": 0, "symbols": 0, "differing": 0}
    for number, payload in enumerate(container.tiles):
        payloads = unpack_streams(payload, model.family.streams)
        decoder = ListeningDecoder(payloads)
        model.family.traverse(decoder, None, geometry_of(container.header, number))
        for name, listener in decoder.rans.items():
            if listener.causal:
                counts["causal"] += 1
                continue
            counts["streams"] += 1
            counts["symbols"] += sum(len(call.symbols) for call in listener.calls)
            counts["differing"] += differing(payloads[name], listener.calls, device)
    return counts


def main() -> None:
    """Print a row for each file; write one JSON object where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path, nargs="*", metavar="PICTURE")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--qualities", default="10,50,90")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    files: dict[str, dict[str, int]] = {}

    def checked(name: str, stream: bytes, zoo: Zoo) -> None:
        files[name] = check(stream, zoo, device)
        print(name, files[name], flush=True)

    for path in sorted(VECTORS.glob("*/*.bin")):
        zoo = Zoo(path.parent) if (path.parent / "manifest.json").exists() else SHIPPED
        stream = path.read_bytes()
        if peek(stream).kind == Kind.IMAGE:
            checked(f"{path.parent.name}/{path.stem}", stream, zoo)
    for picture in options.pictures:
        for quality in map(int, options.qualities.split(",")):
            checked(f"{picture.name} q{quality}", codec.encode(picture, quality=quality), SHIPPED)
    cuda = device.type == "cuda"
    result: dict[str, Any] = {
        "origin": origin(),
        "device": torch.cuda.get_device_name(device) if cuda else "cpu, interpreted",
        "files": files,
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    if any(file["differing"] for file in files.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

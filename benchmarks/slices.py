"""Sub-streams of `iscs`: what a prefix of the layers is worth, what they cost, what threads save.

    python benchmarks/slices.py KODAK [--every 1] [--out benchmarks/results/slices.json]

For some qualities: bytes and PSNR of the picture from the core and the first K
groups; the bytes of the same symbols in one stream instead of one for each group, and the BD-rate
between both; and the time to decode the auxiliary groups of the largest image one after the other
and on threads of their own. The last is of the entropy coder alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import codec
from codec.benchmark.provenance import origin
from codec.bitstream import pack_streams, unpack, unpack_streams
from codec.entropy import AbstractCoder, AbstractStream, Decoder, Encoder, IntArray, Method, Tables
from codec.metrics import bd_rate, psnr
from codec.models.base import TileGeometry
from codec.models.iscs import Iscs
from codec.weights import SHIPPED

QUALITIES = (0, 20, 40, 60, 80, 100)
RUNS = 9


class OneStream(AbstractCoder):
    """An encoder that puts all symbols of y into one stream."""

    def __init__(self) -> None:
        self.encoder = Encoder()
        self.y: AbstractStream | None = None

    def open(self, name: str, method: Method) -> AbstractStream:
        """Keep z as it is; every stream of y is the same."""
        if name == "z":
            return self.encoder.open(name, method)
        self.y = self.y or self.encoder.open("y", method)
        return self.y


class Calls(AbstractCoder, AbstractStream):
    """A decoder that also keeps, for each stream, the tables and indexes that it was asked for."""

    def __init__(self, decoder: Decoder, found: dict[str, Any], name: str = "") -> None:
        self.decoder, self.found, self.name = decoder, found, name
        self.stream: AbstractStream | None = None

    def open(self, name: str, method: Method) -> AbstractStream:
        """See `AbstractCoder.open`."""
        part = Calls(self.decoder, self.found, name)
        part.stream = self.decoder.open(name, method)
        return part

    def code(self, symbols: IntArray | None, tables: Tables, indexes: IntArray) -> IntArray:
        """See `AbstractStream.code`."""
        self.found[self.name] = (tables, indexes)
        assert self.stream is not None
        return self.stream.code(symbols, tables, indexes)


def prefixes(family: Iscs, stream: bytes, image: np.ndarray[Any, Any]) -> list[list[float]]:
    """`[bytes, dB]` of the core alone, with one group, ...; bytes as if the file ended there."""
    layers = [layer["bytes"] for layer in codec.info(stream)["layers"]]
    around = len(stream) - sum(layers)
    sizes = around + np.cumsum(layers)
    decoded = (np.asarray(codec.decode(stream, layers=k)) for k in range(family.layers + 1))
    return [[int(size), psnr(image, found)] for size, found in zip(sizes, decoded, strict=True)]


def bytes_in_one_stream(family: Iscs, stream: bytes) -> int:
    """Size of the file if all of y were one sub-stream."""
    container = unpack(stream)
    header = container.header
    geometry = TileGeometry(header.height, header.width, header.quality)
    decoder = Decoder(unpack_streams(container.tiles[0], family.streams))
    symbols = family.traverse(decoder, None, geometry)
    coder = OneStream()
    family.traverse(coder, symbols, geometry)
    return len(stream) - len(container.tiles[0]) + len(pack_streams(coder.encoder.finish()))


def milliseconds(family: Iscs, stream: bytes) -> dict[str, float]:
    """Median time to decode the groups' sub-streams, by threads."""
    container = unpack(stream)
    header = container.header
    geometry = TileGeometry(header.height, header.width, header.quality)
    streams = unpack_streams(container.tiles[0], family.streams)
    calls: dict[str, Any] = {}
    family.traverse(Calls(Decoder(streams), calls), None, geometry)
    names = family.streams[2:]

    def decode(name: str) -> None:
        Decoder(streams).open(name, Method.RANS).code(None, *calls[name])

    found = {}
    for threads in (1, 2):
        times = []
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(RUNS):
                started = time.perf_counter()
                if threads == 1:
                    for name in names:
                        decode(name)
                else:
                    list(pool.map(decode, names))
                times.append(1000 * (time.perf_counter() - started))
        found[str(threads)] = round(statistics.median(times), 3)
    return found


def main() -> None:
    """Write one JSON file and print its summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("kodak", type=Path)
    parser.add_argument("--every", type=int, default=1, help="only every n-th image")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/slices.json")
    options = parser.parse_args()
    entry = SHIPPED.find("iscs")
    family = SHIPPED.load(entry)
    assert isinstance(family, Iscs)

    rows, threads = [], {}
    for path in sorted(options.kodak.glob("*.png"))[:: options.every]:
        image = np.asarray(Image.open(path).convert("RGB"))
        pixels = image.shape[0] * image.shape[1]
        for quality in QUALITIES:
            stream = codec.encode(image, quality=quality)
            found = prefixes(family, stream, image)
            one = bytes_in_one_stream(family, stream)
            rows.append(
                (quality, [[8 * size / pixels, dB] for size, dB in found], 8 * one / pixels)
            )
            threads[str(quality)] = milliseconds(family, stream)

    curves = {}
    for quality in QUALITIES:
        chosen = [points for found, points, _ in rows if found == quality]
        curves[str(quality)] = np.mean(chosen, axis=0).round(4).tolist()
    whole = [curves[str(quality)][-1] for quality in QUALITIES]
    single = [
        [float(np.mean([one for found, _, one in rows if found == quality])), dB]
        for quality, (_, dB) in zip(QUALITIES, whole, strict=True)
    ]
    result = {
        "command": f"python benchmarks/slices.py KODAK --every {options.every}",
        **origin(),
        "weights": entry.sha256,
        "groups": list(family.network.config.groups),
        "network_passes": "1 for z, 4 for the core, 1 for all groups",
        "bpp_and_dB_by_layers": curves,
        "bd_rate_of_sub_streams": round(bd_rate(single, whole), 3),
        "milliseconds_of_groups_by_threads": threads,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

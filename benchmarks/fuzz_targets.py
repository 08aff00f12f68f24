"""What guided mutations go into: whole streams, the container, each family's decoder.

A target takes any bytes and returns; whatever it raises breaks a promise. `starts` has sound bytes
to mutate for each. Knows no fuzzer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

import codec
from benchmarks.fuzz import VECTORS, FailedError, assemble, judge, take_apart, zoo_of
from codec.bitstream import unpack, unpack_streams
from codec.engine import model_of
from codec.entropy import Decoder
from codec.errors import CodecError
from codec.registry import FAMILIES
from codec.tiling import geometry_of

Target: TypeAlias = Callable[[bytes], None]
GOLDEN = {
    family.name: [path.read_bytes() for path in sorted((VECTORS / family.name).glob("*.bin"))]
    for family in FAMILIES
    if family.kind == "image"
}
NAMES = ("stream", "container", *GOLDEN)


def target(name: str) -> Target:
    """The target of that name, one of `NAMES`."""
    if name in GOLDEN:
        return _decoder(name)
    return {"stream": _stream, "container": _container}[name]


def starts(name: str) -> list[bytes]:
    """Sound bytes for the target of that name."""
    if name in GOLDEN:
        return [
            bytes([number]) + tile
            for number, stream in enumerate(GOLDEN[name])
            for tile in unpack(stream).tiles[:1]
        ]
    return [stream for streams in GOLDEN.values() for stream in streams]


def _mended(stream: bytes) -> bytes:
    """With right checksums, or hardly any mutation would get far; as it is if it is no file."""
    with suppress(CodecError):
        return assemble(take_apart(stream))
    return stream


def _stream(data: bytes) -> None:
    data = _mended(data)
    judge(data, len(data))


def _container(data: bytes) -> None:
    for stream in (data, _mended(data)):
        for partial in (False, True):
            with suppress(CodecError):
                unpack(stream, partial=partial)
        with suppress(CodecError):
            codec.info(stream, zoo=zoo_of(stream))


def _decoder(family: str) -> Target:
    """A first byte that names a golden stream, then a tile for its weights and its first tile."""
    headers = [unpack(stream).header for stream in GOLDEN[family]]
    models = [model_of(unpack(s).header, zoo_of(s), "cpu").family for s in GOLDEN[family]]

    def judge_tile(data: bytes) -> None:
        number = data[0] % len(headers) if data else 0
        model, geometry = models[number], geometry_of(headers[number], 0)
        try:
            decoder = Decoder(unpack_streams(data[1:], model.streams))
            symbols = model.traverse(decoder, None, geometry)
            decoder.finish()
        except CodecError:
            return
        x_hat = model.synthesise(model.dequantise(symbols, geometry), geometry.quality)
        if x_hat.shape[2] < geometry.height or x_hat.shape[3] < geometry.width:
            raise FailedError(f"pixels {tuple(x_hat.shape)} of {geometry}")

    return judge_tile

"""Several pictures side by side give the symbols and latents that each gives alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import codec
from codec.entropy import Decoder, Encoder
from codec.entropy.batch import Single
from codec.entropy.device import DeviceDecoder
from codec.errors import BitstreamError
from codec.models.base import AbstractFamily, Halo, TileGeometry

CPU = torch.device("cpu")
GEOMETRY = TileGeometry(40, 56, 70)


@pytest.fixture(scope="module", params=["iscs/small", "umgm/base"])
def family(request: pytest.FixtureRequest) -> AbstractFamily:
    return codec.load_model(request.param, device="cpu").family


@pytest.fixture(scope="module")
def payloads(family: AbstractFamily) -> list[dict[str, bytes]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(3):
        x = torch.rand(1, 3, 40, 56, generator=generator)
        encoder = Encoder(32)  # few rounds, each of which an interpreter takes a millisecond for
        family.traverse(encoder, family.analyse(x, GEOMETRY, Halo()), GEOMETRY)
        found.append(encoder.finish())
    return found


def read(family: AbstractFamily, payloads: list[dict[str, bytes]]) -> None:
    batch = DeviceDecoder(payloads, CPU, kernel=False)
    family.traverse_batch(batch, GEOMETRY)
    batch.finish()


def compare(
    family: AbstractFamily, payloads: list[dict[str, bytes]], geometry: TileGeometry, kernel: bool
) -> None:
    batch = DeviceDecoder(payloads, CPU, kernel=kernel)
    found = family.traverse_batch(batch, geometry)
    assert found is not None
    batch.finish()
    latents = family.dequantise_batch(found, geometry)
    pixels = family.synthesise(latents, geometry.quality)
    for number, own in enumerate(payloads):
        decoder = Decoder(own)
        symbols = family.traverse(decoder, None, geometry)
        decoder.finish()
        assert found.keys() == symbols.keys()
        for name, values in symbols.items():
            np.testing.assert_array_equal(found[name][number].numpy().reshape(-1), values)
        alone = family.dequantise(symbols, geometry)
        torch.testing.assert_close(latents[number : number + 1], alone)
        x_hat = family.synthesise(alone, geometry.quality)
        assert float((pixels[number] - x_hat).abs().max()) < 1 / 255


@pytest.mark.parametrize("kernel", [False, True], ids=["cores", "kernel"])
def test_pictures_side_by_side_are_those_one_by_one(
    family: AbstractFamily, payloads: list[dict[str, bytes]], kernel: bool
) -> None:
    compare(family, payloads[:2] if kernel else payloads, GEOMETRY, kernel)  # it is interpreted


def test_pictures_side_by_side_are_those_one_by_one_of_the_first_layers_too(
    family: AbstractFamily, payloads: list[dict[str, bytes]]
) -> None:
    needed = len(family.streams) - family.layers
    for layers in range(family.layers):
        known = [
            {name: own[name] for name in family.streams[: needed + layers]} for own in payloads
        ]
        compare(family, known, replace(GEOMETRY, layers=layers), kernel=False)


def test_the_symbols_of_one_in_a_batch_of_one_are_its_own(
    family: AbstractFamily, payloads: list[dict[str, bytes]]
) -> None:
    found = family.traverse_batch(Single(Decoder(payloads[0])), GEOMETRY)
    assert found is not None
    symbols = family.traverse(Decoder(payloads[0]), None, GEOMETRY)
    assert found.keys() == symbols.keys()
    for name, values in symbols.items():
        np.testing.assert_array_equal(found[name].numpy().reshape(-1), values)


def test_damage_to_one_of_the_pictures_is_told(
    family: AbstractFamily, payloads: list[dict[str, bytes]]
) -> None:
    for name in payloads[1]:
        damaged = [dict(own) for own in payloads]
        damaged[1][name] = damaged[1][name][:-2]
        with pytest.raises(BitstreamError):
            read(family, damaged)


def test_a_stream_that_is_missing_or_that_nobody_reads_is_refused(
    family: AbstractFamily, payloads: list[dict[str, bytes]]
) -> None:
    less = [payloads[0], {name: own for name, own in payloads[1].items() if name != "y0"}]
    with pytest.raises(BitstreamError, match="picture 1"):
        read(family, less)
    with pytest.raises(BitstreamError, match="more"):
        read(family, [payloads[0] | {"more": b""}])

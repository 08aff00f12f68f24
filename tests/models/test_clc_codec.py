"""`clc`, frozen: with references it says the same on both sides, without any it is `iscs`."""

import numpy as np
import pytest
import torch

from codec.entropy import BitCounter, Decoder, Encoder, IntArray, Method
from codec.errors import BitstreamError
from codec.models.base import SHORT, Halo, TileGeometry
from codec.models.clc import Clc
from codec.models.clc.codec import ENTRY, WIDTH
from codec.models.clc.dictionary import Dictionary, pooled
from codec.models.iscs import Iscs
from tests.models.clc_tiny import pictures, tiny


def coded(codec: Iscs, symbols: dict[str, IntArray], geometry: TileGeometry) -> dict[str, bytes]:
    encoder = Encoder()
    codec.traverse(encoder, symbols, geometry)
    return encoder.finish()


def references(*blocks: tuple[int, int]) -> IntArray:
    """Blocks whose squares all begin at their first reference but the first square."""
    r = np.zeros((len(blocks), WIDTH), np.int32)
    r[:, :2] = blocks
    r[:, 3:] = r[:, :1] > 0
    return r


def test_a_picture_of_the_dictionary_is_found_and_costs_less() -> None:
    codec, geometry = tiny(), TileGeometry(256, 256, 30)
    x = pictures(4)[1:2]
    symbols = codec.analyse(x, geometry, Halo())
    assert codec.refers(symbols)
    assert symbols["r"][0] == 2
    alone = {"r": 0 * symbols["r"], **Iscs.analyse(codec, x, geometry, Halo())}
    sizes = [sum(map(len, coded(codec, own, geometry).values())) for own in (symbols, alone)]
    assert sizes[0] < 0.7 * sizes[1]
    assert (symbols["z"] != alone["z"]).any()  # z is of what is left


@pytest.mark.parametrize("pair", [(1, 3), (2, 2)])
@pytest.mark.parametrize(("height", "width"), [(256, 512), (300, 270), (1, 1), (64, 100)])
def test_what_is_decoded_is_what_was_coded(height: int, width: int, pair: tuple[int, int]) -> None:
    codec, geometry = tiny(), TileGeometry(height, width, 60)
    x = pictures(1, height, width)
    blocks = -(-height // 256) * -(-width // 256)
    r = references(pair, *[(0, 0)] * (blocks - 1))
    latents = codec._latents(x, geometry, Halo())
    way = codec._with(latents, Halo(), r, geometry)
    streams = coded(codec, way.symbols, geometry)
    decoder = Decoder(streams)
    found = codec.traverse(decoder, None, geometry)
    decoder.finish()
    for name, values in way.symbols.items():
        np.testing.assert_array_equal(values, found[name])
    assert codec.refers(found)
    again = codec._found(
        latents, Halo(), found["z"].reshape(4, -(-height // 64), -(-width // 64)),
        codec._given(r, geometry), geometry, SHORT,
    )  # fmt: skip
    inverse = codec.network.inverse_gain(torch.tensor([60.0])).exp()
    torch.testing.assert_close(codec.dequantise(found, geometry), again.y_hat * inverse)


def test_without_references_it_is_iscs_bit_for_bit() -> None:
    codec, geometry = tiny(), TileGeometry(200, 300, 80)
    x = pictures(1, 200, 300)
    symbols = Iscs.analyse(codec, x, geometry, Halo())
    none = np.zeros(2 * WIDTH, np.int32)
    own = coded(codec, {"r": none, **symbols}, geometry)
    encoder = Encoder()
    Iscs.traverse(codec, encoder, symbols, geometry)
    theirs = encoder.finish()
    assert {n: s for n, s in own.items() if n != "z"} == {
        n: s for n, s in theirs.items() if n != "z"
    }
    assert len(own["z"]) <= len(theirs["z"]) + 1
    assert torch.equal(
        codec.dequantise({"r": none, **symbols}, geometry),
        Iscs.dequantise(codec, symbols, geometry),
    )


def test_a_strange_picture_takes_no_references() -> None:
    codec, geometry = tiny(), TileGeometry(128, 128, 90)
    torch.manual_seed(5)
    symbols = codec.analyse(torch.rand(1, 3, 128, 128), geometry, Halo())
    assert not codec.refers(symbols)


def test_levels_change_by_integers_where_a_square_begins_at_a_reference() -> None:
    levels = tiny()._levels(references((1, 1), (0, 0)), TileGeometry(256, 300, 50))
    assert levels.shape == (16, 16, 19)
    assert (levels[:, :4, :4] == 0).all()
    assert (levels[:, 4:, :16] == -512).all()
    assert (levels[:, :, 16:] == 0).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r[0].__setitem__(0, 4),  # there are three
        lambda r: r[0].__setitem__(slice(0, 2), (1, -1)),
        lambda r: r[0].__setitem__(5, 2),  # but there is no second one
        lambda r: r[0].__setitem__(5, -1),
    ],
)
def test_numbers_that_nobody_has_are_not_coded(change) -> None:  # type: ignore[no-untyped-def]
    r = references((1, 1), (0, 0))
    change(r)
    with pytest.raises(BitstreamError):
        tiny().walk_references(BitCounter().open("z", Method.RANGE), r, 2)


class Scripted:
    """A stream that says what it is told to."""

    def __init__(self, *answers: list[int]) -> None:
        self.answers = list(answers)

    def code(self, symbols, tables, indexes):  # type: ignore[no-untyped-def]
        answer = self.answers.pop(0)
        assert len(answer) == len(indexes)
        return np.array(answer, np.int32)


@pytest.mark.parametrize(
    "answers",
    [
        ([1], [0, 0], []),  # some, but none
        ([1], [2, 0], [2]),  # another, but the same
        ([2],),
        ([1], [4, 0]),
        ([1], [2, 0], [4]),
        ([1], [2, 0], [0], [2] * 16),
    ],
)
def test_a_stream_that_says_it_another_way_is_refused(answers: tuple[list[int], ...]) -> None:
    with pytest.raises(BitstreamError):
        tiny().walk_references(Scripted(*answers), None, 2)  # type: ignore[arg-type]


def test_a_file_holds_all_of_it() -> None:
    iscs = Iscs(tiny().network, tiny().coding)

    def loaded(codec: Clc) -> Clc:
        about = {**iscs.metadata(), **codec.metadata()}
        return Clc.load({**iscs.tensors(), **codec.tensors()}, about)

    codec = loaded(tiny())  # whose weights are of half precision
    again = loaded(codec)
    assert again.backbone == "00" * 32
    assert len(again.dictionary) == 3
    np.testing.assert_array_equal(again.shift, codec.shift)
    geometry = TileGeometry(256, 256, 40)
    x = pictures(4)[3:]
    for name, values in codec.analyse(x, geometry, Halo()).items():
        np.testing.assert_array_equal(values, again.analyse(x, geometry, Halo())[name])


def test_another_dictionary_makes_another_codec() -> None:
    codec = tiny()
    other = codec.with_dictionary(codec.collect(pictures(4)[3:].split(1), 4))
    assert (len(other.dictionary), len(codec.dictionary)) == (1, 3)
    assert not torch.equal(other._latents_of(0), codec._latents_of(0))
    symbols = other.analyse(pictures(4)[3:], TileGeometry(256, 256, 30), Halo())
    assert symbols["r"][:2].tolist() == [1, 1]


def test_the_nearest_entry_of_a_picture_is_its_own() -> None:
    codec = tiny()
    for number in range(3):
        core = codec._latents_of(number)[None, :8]
        assert codec.dictionary.nearest(pooled(core)[0], 2)[0] == number


def test_clusters_are_stood_for_by_one_of_theirs_and_twins_count_once() -> None:
    middle = np.repeat(np.eye(3, 6, dtype=np.float32), 5, axis=0)
    features = middle + 0.01 * np.random.default_rng(0).standard_normal((15, 6)).astype(np.float32)
    entries = [[bytes([number]), b"z"] for number in range(15)]
    few = Dictionary.of(entries, features, 3)
    kept = [few.payloads(number) for number in range(3)]
    assert [entry[0][0] // 5 for entry in kept] == [0, 1, 2]
    assert all(entry in entries for entry in kept)
    twins = Dictionary.of([*entries, *entries], np.concatenate([features, features]), 100)
    assert [twins.payloads(number) for number in range(len(twins))] == entries


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("sizes", np.s_[:1]),
        ("streams", np.s_[1:]),
        ("descriptors", np.s_[:, 1:]),
        ("axes", np.s_[1:]),
        ("centre", np.s_[1:]),
    ],
)
def test_a_dictionary_whose_parts_do_not_fit_is_refused(name: str, cut: object) -> None:
    tensors = tiny().dictionary.tensors()
    tensors[f"dictionary.{name}"] = tensors[f"dictionary.{name}"][cut].clone()
    with pytest.raises(ValueError, match="fit"):
        Dictionary.load(tensors)


def test_an_entry_is_a_tile_of_iscs() -> None:
    codec = tiny()
    x = pictures(4)[2:3]
    symbols = Iscs.analyse(codec, x, ENTRY, Halo())
    y_hat = Iscs.dequantise(codec, symbols, ENTRY)[0] / codec.network.std[:, None, None]
    assert torch.equal(codec._latents_of(2), y_hat)

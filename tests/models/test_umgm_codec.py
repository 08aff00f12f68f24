"""Frozen codebooks and the codec made of them, against the network and against slow references."""

import copy

import numpy as np
import pytest
import torch

from codec.entropy import AbstractCoder, BitCounter, Decoder, Encoder, Method, code_lengths
from codec.entropy.batch import AbstractBatchStream, Single
from codec.errors import BitstreamError
from codec.models.base import Halo, TileGeometry
from codec.models.frozen import (
    freeze_layers,
    layers_of_tensors,
    tensors_of_layers,
    thaw_layers,
)
from codec.models.quantize import WORTH
from codec.models.umgm import Umgm
from codec.models.umgm.codebooks import Codebooks, Codewords
from codec.models.umgm.mixture import LEVELS
from codec.models.umgm.network import lattice_masks
from codec.training.export_umgm import fit_codebooks
from tests.models.umgm_tiny import TINY, tiny

CPU = torch.device("cpu")
SIZE = (3, 4)
GEOMETRY = TileGeometry(128, 192, 70)


def counted(seed: int = 0) -> Codebooks:
    """Codebooks fitted to counts in which codes fall off and some are missing."""
    books = Codebooks.freeze(tiny().rest)
    rng = np.random.default_rng(seed)
    counts = rng.poisson(3e4 / 4.0 ** np.arange(16), (3 * LEVELS, 16)).astype(float)
    counts[:, 5] = 0
    counts[: 2 * LEVELS, 8:] = 0
    counts[:4, 1:] = 0
    counts[:4, 0] = 1e9
    return books.fitted(counts)


def some_levels(books: Codebooks, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (books.groups, *SIZE)
    return torch.randint(0, LEVELS, shape, generator=generator, dtype=torch.int32)


def opened(coder: AbstractCoder) -> AbstractBatchStream:
    return Single(coder).open("y", Method.RANS)


def picture(height: int = 128, width: int = 192) -> torch.Tensor:
    torch.manual_seed(5)
    coarse = torch.rand(1, 3, height // 8, width // 8)
    return torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear")


def streams_of(codec: Umgm, geometry: TileGeometry = GEOMETRY) -> dict[str, bytes]:
    encoder = Encoder()
    codec.traverse(encoder, codec.analyse(picture(), geometry, Halo()), geometry)
    return encoder.finish()


# ---- codebooks


@pytest.mark.parametrize("books", [Codebooks.freeze(tiny().rest), counted()], ids=["model", "fit"])
def test_the_nearest_code_costs_least_bits_and_error(books: Codebooks) -> None:
    torch.manual_seed(2)
    levels = some_levels(books)
    x = 2 * torch.randn(8, *SIZE)
    codes = books.nearest(x, levels)
    words = [w[:n] for w, n in zip((w for b in books.banks for w in b), books.sizes, strict=True)]
    channel = 0
    for group, own in enumerate(words):
        vectors = x[channel : channel + own.shape[1]]
        channel += own.shape[1]
        for place in np.ndindex(SIZE):
            row = group * LEVELS + int(levels[(group, *place)])
            every = np.arange(len(own), dtype=np.int32)
            bits = code_lengths(every, books.tables, np.full(len(own), row, np.int32))
            if books.silent[row]:
                bits = np.where(every == 0, 0, np.inf)
            errors = (vectors[(slice(None), *place)] - own).square().sum(1).numpy()
            costs = bits + WORTH * errors
            assert costs[codes[(group, *place)]] <= costs.min() + 1e-3


def test_codes_come_back_and_silent_tables_write_nothing() -> None:
    books = counted()
    levels = some_levels(books)
    levels[0, 0] = torch.arange(4)  # silent, after these counts
    codes = books.nearest(torch.full((8, *SIZE), 0.4), levels)[None]
    levels = levels[None]
    assert books.silent[:4].all()
    assert not codes[0, 0, 0].any()
    encoder = Encoder()
    books.on(CPU).code(opened(encoder), codes, levels)
    decoder = Decoder(encoder.finish())
    assert torch.equal(books.on(CPU).code(opened(decoder), None, levels), codes)
    decoder.finish()
    counter = BitCounter()
    silent = codes[:, :1, :1], levels[:, :1, :1]
    books.on(CPU).code(opened(counter), *silent, slice(1))
    assert counter.bits == 0


def test_codes_are_written_where_they_are_wanted_and_0_elsewhere() -> None:
    words = Codebooks.freeze(tiny().rest).on(CPU)
    levels = torch.full((1, 3, *SIZE), 20, dtype=torch.int32)
    codes = torch.arange(1, 5, dtype=torch.int32).expand(1, 3, *SIZE)
    where = torch.tensor([[True, False, True, False]]).expand(SIZE)
    encoder = Encoder()
    assert torch.equal(words.code(opened(encoder), codes, levels, where=where), codes * where)
    decoder = Decoder(encoder.finish())
    assert torch.equal(words.code(opened(decoder), None, levels, where=where), codes * where)
    decoder.finish()


def test_fitted_tables_follow_counts_and_codewords_hardly_used_are_gone() -> None:
    before, books = Codebooks.freeze(tiny().rest), counted()
    np.testing.assert_array_equal(books.sizes, [7, 7, 9])  # of the last group one is counted once
    for words, size in zip((w for b in books.banks for w in b), books.sizes, strict=True):
        assert words[0].square().sum() == words[:size].square().sum(1).min()
    dropped = before.banks[0][0, 5]
    assert not (books.banks[0][0, : books.sizes[0]] == dropped).all(1).any()
    freqs = np.diff(books.tables.cdf[10].astype(float))[:4] / 2**16
    assert np.allclose(freqs, 0.75 / 4.0 ** np.arange(4), rtol=0.25)


def test_a_rare_code_behind_the_end_of_its_table_is_coded_too() -> None:
    books = counted()
    group = 2
    level = int(np.argmin((books.tables.sizes + 100 * books.silent)[group * LEVELS :]))
    row = group * LEVELS + level
    last = books.sizes[group] - 1
    assert books.tables.sizes[row] - 1 < last
    codes = torch.full((1, 1, 1, 2), int(last), dtype=torch.int32)
    levels = torch.full_like(codes, level)
    part = slice(group, group + 1)
    encoder = Encoder()
    books.on(CPU).code(opened(encoder), codes, levels, part)
    decoder = Decoder(encoder.finish())
    assert torch.equal(books.on(CPU).code(opened(decoder), None, levels, part), codes)


@pytest.mark.parametrize("code", [-1, 15, 4000])
def test_a_code_without_a_codeword_is_refused(code: int) -> None:
    books = counted()
    row, codes = np.array([2 * LEVELS + 9], np.int32), np.array([code], np.int32)
    encoder = Encoder()
    encoder.open("y", Method.RANS).code(codes, books.tables, row)
    levels = torch.full((1, 1, 1, 1), 9, dtype=torch.int32)
    with pytest.raises(BitstreamError, match="codeword"):
        books.on(CPU).code(opened(Decoder(encoder.finish())), None, levels, slice(2, 3))


def test_codewords_of_several_pictures_are_those_of_each_group() -> None:
    books = counted()
    generator = torch.Generator().manual_seed(4)
    codes = torch.randint(0, 7, (2, 3, *SIZE), generator=generator, dtype=torch.int32)
    values = books.on(CPU).values(codes)
    assert values.shape == (2, 8, *SIZE)
    for number, row, column in np.ndindex(2, *SIZE):
        own = codes[number, :, row, column].tolist()
        words = [words[code] for words, code in zip(books._words(), own, strict=True)]
        assert torch.equal(values[number, :, row, column], torch.cat(words))


def test_codebooks_are_the_same_out_of_a_file() -> None:
    books = counted()
    again = Codebooks.load("y.", 2, {k: v.clone() for k, v in books.tensors("y.").items()})
    np.testing.assert_array_equal(again.tables.cdf, books.tables.cdf)
    np.testing.assert_array_equal(again.tables.sizes, books.tables.sizes)
    np.testing.assert_array_equal(again.sizes, books.sizes)
    np.testing.assert_array_equal(again.silent, books.silent)
    assert all(torch.equal(*pair) for pair in zip(again.banks, books.banks, strict=True))


@pytest.mark.parametrize("name", ["y.sizes", "y.silent", "y.lengths"])
def test_tensors_that_do_not_fit_each_other_are_refused(name: str) -> None:
    tensors = counted().tensors("y.")
    if name == "y.lengths":
        count = int(tensors[name][-1])
        tensors["y.freqs"] = tensors["y.freqs"][:-count]
    tensors[name] = tensors[name][:-1]
    with pytest.raises(ValueError, match="y\\."):
        Codebooks.load("y.", 2, tensors)


def test_integer_codewords_are_whole_in_256ths_even_where_half_precision_is_coarse() -> None:
    mixture = tiny().z
    with torch.no_grad():
        mixture.banks[0].codewords.mul_(17.23)
        mixture.banks[0].codewords[0, :3].mul_(0.01)
    books = Codebooks.freeze(mixture, integer=True)
    values = books.banks[0].double() * 256
    assert values.abs().max() > 8 * 256
    assert torch.equal(values, values.round())
    words, codes = books.on(CPU), torch.arange(2, dtype=torch.int32)[None, :, None, None]
    assert torch.equal(words.integers(codes) / 256, words.values(codes).double())


# ---- the codec


def test_the_frozen_codec_is_the_network() -> None:
    network = tiny().eval()
    codec = Umgm.freeze(network)
    quality = torch.tensor([float(GEOMETRY.quality)])
    symbols = codec.analyse(picture(), GEOMETRY, Halo())
    assert all(value.dtype == np.int32 for value in symbols.values())
    assert len(np.unique(symbols["y"])) > 4
    with torch.no_grad():
        coded = network.code(network.g_a(picture(), quality), quality)
        expected = coded.y_hat * network.inverse_gain(quality).exp()
    found = codec.dequantise(symbols, GEOMETRY)
    # Levels are rounded in the frozen codec, so that some codes may differ, and what follows them.
    assert ((found - expected).abs() > 1e-2).float().mean() < 0.03
    counter = BitCounter()
    codec.traverse(counter, symbols, GEOMETRY)
    # Between two levels the network takes the mean of their bits, which is more than those of one.
    assert counter.bits == pytest.approx(coded.bits.item(), rel=0.1)


def test_codes_are_chosen_with_the_tables_that_code_them(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Umgm.freeze(tiny())
    chosen, coded = [], []
    nearest, code = Codebooks.nearest, Codewords.code

    def watch_nearest(books: Codebooks, x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        chosen.append(levels.clone())
        return nearest(books, x, levels)

    def watch_code(
        words: Codewords,
        stream: AbstractBatchStream,
        given: torch.Tensor | None,
        levels: torch.Tensor,
        part: slice = slice(None),
        where: torch.Tensor | bool = True,
    ) -> torch.Tensor:
        places = torch.as_tensor(where).expand(levels.shape[2:])
        coded.append(levels[0, :, places])
        return code(words, stream, given, levels, part, where)

    monkeypatch.setattr(Codebooks, "nearest", watch_nearest)
    monkeypatch.setattr(Codewords, "code", watch_code)
    streams_of(codec)
    even = torch.zeros(8, 12, dtype=torch.bool)
    even[::2, ::2] = True
    z, first, then, rest = chosen
    wanted = (z.flatten(1), first[:, even], then[:, ~even], *rest.flatten(1).split(TINY.layers))
    for found, expected in zip(coded, wanted, strict=True):
        assert torch.equal(found, expected)
    assert (first != then).any()


def test_weights_out_of_a_file_code_the_same() -> None:
    codec = Umgm.freeze(tiny())
    again = Umgm.load({k: v.clone() for k, v in codec.tensors().items()}, codec.metadata())
    streams = streams_of(codec)
    assert streams_of(again) == streams
    decoder = Decoder(streams)
    symbols = again.traverse(decoder, None, GEOMETRY)
    decoder.finish()
    pixels = [c.synthesise(c.dequantise(symbols, GEOMETRY), 70) for c in (codec, again)]
    assert torch.allclose(*pixels, atol=2e-3)  # large floats are in half precision


def test_a_frozen_codec_does_not_follow_the_network_and_has_none_of_its_integer_parts() -> None:
    network = tiny()
    codec = Umgm.freeze(network)
    before = streams_of(codec)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert streams_of(codec) == before
    gone = ("z.", "core.", "rest.", "h_s_scale.", "scale_context.", "prior_z.")
    assert not [name for name in codec.network.state_dict() if name.startswith(gone)]


def test_without_the_last_layers_their_codes_are_zero() -> None:
    codec = Umgm.freeze(tiny())
    whole = codec.analyse(picture(), GEOMETRY, Halo())["y"].reshape(6, 8, 12)
    streams = streams_of(codec)
    for layers in (0, 1):
        known = {name: streams[name] for name in codec.streams[: 2 + layers]}
        geometry = TileGeometry(128, 192, 70, layers)
        y = codec.traverse(Decoder(known), None, geometry)["y"].reshape(6, 8, 12)
        kept = 3 + sum(TINY.layers[:layers])
        np.testing.assert_array_equal(y[:kept], whole[:kept])
        assert whole[kept:].any()
        assert not y[kept:].any()


def test_the_core_is_coded_in_two_steps_that_share_no_position() -> None:
    masks = lattice_masks(5)
    assert torch.equal(masks.sum(0), torch.ones(5, 2, 2))
    assert torch.equal(masks[0].nonzero()[:, 1:], torch.zeros(5, 2, dtype=torch.long))


def test_tables_of_the_second_step_depend_on_the_first() -> None:
    codec = Umgm.freeze(tiny())
    levels = codec.coding.scales.on(CPU)
    said = levels.of_z(torch.zeros(1, 4, 2, 3, dtype=torch.float64), 70, 8, 12)
    words = torch.zeros(1, 4, 8, 12, dtype=torch.int32)
    first = codec._levels(said, 1, words)
    words[..., 2, 2] = 9
    changed = codec._levels(said, 1, words) != first
    assert changed[..., 1:4, 1:4].any()
    assert not changed[..., 5:, :].any()
    assert torch.equal(codec._levels(said, 0, words), codec._levels(said, 0, 0 * words))


def test_fitting_to_codes_makes_them_cheaper_and_drops_what_none_used() -> None:
    codec = Umgm.freeze(tiny())
    photos = [(255 * picture(64, 64)[0]).byte().numpy(), (255 * picture()[0]).byte().numpy()]
    fitted = fit_codebooks(codec, photos)
    assert fitted.coding.z.sizes.sum() < codec.coding.z.sizes.sum()
    bits = []
    for own in (codec, fitted):
        counter = BitCounter()
        own.traverse(counter, own.analyse(picture(), GEOMETRY, Halo()), GEOMETRY)
        bits.append(counter.bits)
    assert bits[1] < bits[0]


# ---- layers of integers


def test_frozen_layers_come_back_from_tensors_and_into_a_network() -> None:
    network = tiny().h_s_scale
    names = ("enter", "spatial", "leave")
    layers = freeze_layers(network, names)
    again = layers_of_tensors("a.", names, tensors_of_layers("a.", layers))
    for name in names:
        np.testing.assert_array_equal(again[name].weight, layers[name].weight)
        np.testing.assert_array_equal(again[name].bias, layers[name].bias)
        assert again[name].shift == layers[name].shift
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    thaw_layers(other, layers)
    for name in names:
        for kind in ("weight", "bias"):
            values = (getattr(getattr(part, name), kind) for part in (other, network))
            assert torch.allclose(*values, atol=1e-4)

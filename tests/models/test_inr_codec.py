import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from codec.entropy import BitCounter, Decoder, Encoder, Silence
from codec.errors import BitstreamError, CodecError
from codec.models.base import Halo, Search, TileGeometry
from codec.models.inr import Inr
from codec.models.inr.codec import evaluations_after, iterations_of, lmbda_of
from codec.models.inr.layout import HYPER_LEVELS, IFCE_LEVELS, PRESETS, grid_sizes
from codec.models.inr.network import synthesise, upsample
from codec.models.inr.parameters import GROUPS, Deltas, floats
from codec.models.inr.syntax import HEAD, Networks
from codec.weights import SHIPPED
from tests.models.inr_pictures import codec_of, random_grids, random_networks, zeros

GEOMETRY = TileGeometry(21, 34, 50)
LOP, MOP, HOP = PRESETS


@pytest.fixture(scope="module")
def codec():
    return codec_of((LOP, zeros(LOP)), (MOP, random_networks(MOP, 5)), (HOP, zeros(HOP)))


@pytest.fixture(scope="module", params=[0, 1, 2])
def symbols(request, codec):
    prior = request.param
    preset = codec.priors[prior].preset
    grids = random_grids(GEOMETRY.height, GEOMETRY.width, prior)
    x = torch.rand(1, 3, GEOMETRY.height, GEOMETRY.width)
    networks = {name: value[None] for name, value in random_networks(preset, prior).items()}
    return codec.written(x, grids, networks, prior=prior, lmbda=1e-3, evaluations=7)


def test_the_walk_gives_back_the_symbols_and_costs_what_was_counted(codec, symbols):
    encoder, counter = Encoder(), BitCounter()
    codec.traverse(encoder, symbols, GEOMETRY)
    codec.traverse(counter, symbols, GEOMETRY)
    streams = encoder.finish()
    assert tuple(streams) == codec.streams
    decoder = Decoder(streams)
    found = codec.traverse(decoder, None, GEOMETRY)
    decoder.finish()
    assert list(symbols) == list(found)
    for key, expected in symbols.items():
        np.testing.assert_array_equal(expected, found[key])
        assert found[key].dtype == np.int32
    assert counter.bits - 1 <= 8 * sum(map(len, streams.values())) <= counter.bits + 8 * (3 + 6)


def test_pixels_are_those_of_the_networks_and_grids_that_were_written(codec, symbols):
    said = Networks.read(symbols["networks"], codec.priors)
    values = said.deltas.values(codec.priors[said.prior])
    grids = random_grids(GEOMETRY.height, GEOMETRY.width, said.prior)
    networks = floats(values, torch.device("cpu"))
    expected = synthesise(upsample(grids[3:], networks), networks)
    y_hat = codec.dequantise(symbols, GEOMETRY)
    assert torch.allclose(expected, codec.synthesise(y_hat, 50), rtol=1e-4, atol=1e-4)
    assert y_hat.shape == (1, 3, GEOMETRY.height, GEOMETRY.width)


def test_networks_as_symbols_say_the_same(codec, symbols):
    said = Networks.read(symbols["networks"], codec.priors)
    np.testing.assert_array_equal(symbols["networks"], said.symbols())
    grids = random_grids(GEOMETRY.height, GEOMETRY.width, said.prior)
    assert [not grid.any() for grid in grids] == said.empty
    assert said.empty[3]


def test_an_exponent_that_nothing_uses_is_no_symbol(codec):
    shapes = {name: value.shape for name, value in codec.priors[0].values.items()}
    q = {name: np.zeros(shape, np.int32) for name, shape in shapes.items()}
    unused = Deltas(dict.fromkeys(GROUPS, 5), dict.fromkeys(shapes, 0), q)
    assert not Networks(0, [False] * 10, unused).symbols().any()


def test_latents_beyond_their_range_are_clipped(codec):
    grids = [torch.full((1, *size), 1e6) for size in grid_sizes(3, 5)]
    networks = {name: value[None] for name, value in zeros(LOP).items()}
    x = torch.rand(1, 3, 3, 5)
    symbols = codec.written(x, grids, networks, prior=0, lmbda=1.0, evaluations=7)
    assert set(symbols["latents"]) == {2047}
    codec.traverse(Encoder(), symbols, TileGeometry(3, 5, 0))


def test_a_picture_that_is_its_prior_costs_a_few_bytes():
    networks = random_networks(LOP, 3)
    codec = codec_of((LOP, networks))
    grids = [torch.zeros(1, *size) for size in grid_sizes(40, 40)]
    own = {name: value[None] for name, value in networks.items()}
    x = torch.rand(1, 3, 40, 40)
    symbols = codec.written(x, grids, own, prior=0, lmbda=1e-3, evaluations=7)
    encoder = Encoder()
    codec.traverse(encoder, symbols, TileGeometry(40, 40, 0))
    streams = encoder.finish()
    assert streams["latents"] == b""
    assert len(streams["networks"]) <= 9


def test_silence_is_the_first_prior_and_nothing_else(codec):
    found = codec.traverse(Silence(), None, GEOMETRY)
    assert not found["networks"].any()
    assert not found["latents"].any()
    assert torch.isfinite(codec.dequantise(found, GEOMETRY)).all()


@pytest.mark.parametrize(("place", "number"), [(0, 3), (1, 2), (HEAD, 64), (-1, None)])
def test_numbers_out_of_range_are_refused(codec, place, number):
    symbols = {
        key: value.copy() for key, value in codec.traverse(Silence(), None, GEOMETRY).items()
    }
    if number is None:  # an exponent of 9 for weights that end at 8
        number, place = 9, HEAD + len(codec.priors[0].values)
        symbols["networks"][HEAD] = 30
    symbols["networks"][place] = number
    with pytest.raises(BitstreamError, match="networks"):
        codec.traverse(Encoder(), symbols, GEOMETRY)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damage_gives_symbols_or_a_codec_error(codec, symbols, draw):
    encoder = Encoder()
    codec.traverse(encoder, symbols, GEOMETRY)
    streams = {key: bytearray(value) for key, value in encoder.finish().items()}
    victim = streams[draw.draw(st.sampled_from(sorted(streams)))]
    for _ in range(draw.draw(st.integers(1, 4))):
        victim[draw.draw(st.integers(0, len(victim) - 1))] ^= draw.draw(st.integers(1, 255))
    decoder = Decoder({key: bytes(value) for key, value in streams.items()})
    try:
        found = codec.traverse(decoder, None, GEOMETRY)
        decoder.finish()
    except CodecError:
        return
    assert codec.dequantise(found, GEOMETRY).shape == (1, 3, 21, 34)


def test_a_weight_file_holds_the_codec(codec, symbols):
    again = Inr.load(load(save(codec.tensors())), codec.metadata())
    streams = []
    for each in (codec, again):
        encoder = Encoder()
        each.traverse(encoder, symbols, GEOMETRY)
        streams.append(encoder.finish())
    assert streams[0] == streams[1]
    np.testing.assert_array_equal(
        codec.dequantise(symbols, GEOMETRY), again.dequantise(symbols, GEOMETRY)
    )


@pytest.mark.parametrize("missing", ["latents.freqs", "side.sizes", "prior.2.arm.0.bias"])
def test_a_weight_file_that_lacks_something_is_refused(codec, missing):
    tensors = codec.tensors()
    del tensors[missing]
    with pytest.raises(KeyError, match=missing):
        Inr.load(tensors, codec.metadata())


def test_tables_for_other_priors_are_refused(codec):
    with pytest.raises(ValueError, match="2 priors"):
        Inr.load(codec.tensors(), {"presets": "lop mop", "lambdas": "1 2"})


@pytest.mark.parametrize("quality", [50, 100])  # a prior of zeros, and another
def test_fitting_gets_closer_and_says_so_and_looks_at_no_neighbour(monkeypatch, quality):
    monkeypatch.setattr("codec.models.inr.codec.ITERATIONS", (80, 80))
    codec = codec_of((LOP, zeros(LOP)), (LOP, random_networks(LOP, 0)))
    told = []
    search = Search(watch=lambda part, note: told.append((part, note)))
    geometry = TileGeometry(12, 16, quality)
    ramp = torch.linspace(0.2, 0.8, 16).expand(1, 3, 12, 16)
    symbols = codec.analyse(ramp, geometry, Halo(), search)
    error = (codec.dequantise(symbols, geometry) - ramp).square().mean()
    assert error < 0.5 * ramp.var()
    assert told[-1][0] == 1.0
    assert "dB" in told[-1][1]
    said = Networks.read(symbols["networks"], codec.priors)
    assert said.prior == quality // 100
    if quality == 50:  # zeros themselves have no slope to learn it from
        assert said.deltas.q["up.kernel.weight"].any()

    around = torch.nn.functional.pad(ramp, (3, 1, 2, 4), value=1.0)
    again = codec.analyse(around, geometry, Halo(left=3, top=2, right=1, bottom=4))
    for key, expected in symbols.items():
        np.testing.assert_array_equal(expected, again[key])


def test_a_fit_has_all_cores_for_its_kernels(monkeypatch):
    monkeypatch.setattr("codec.models.inr.codec.ITERATIONS", (1, 1))
    torchs = set()
    search = Search(watch=lambda part, note: torchs.add(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        codec_of((LOP, zeros(LOP))).analyse(
            torch.rand(1, 3, 9, 9), TileGeometry(9, 9, 50), Halo(), search
        )
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torchs == {1}


def test_more_effort_takes_more_steps():
    steps = [iterations_of(effort) for effort in range(10)]
    assert (steps[0], steps[9]) == (120, 10_000)
    assert steps == sorted(set(steps))


def test_networks_that_a_small_picture_is_not_worth_stay_those_of_the_prior():
    codec = SHIPPED.load(SHIPPED.find("inr"))
    x = torch.tensor([0.6, 0.5, 0.55]).reshape(1, 3, 1, 1)
    geometry = TileGeometry(1, 1, 80)
    symbols = codec.analyse(x, geometry, Halo())
    assert not any(
        q.any() for q in Networks.read(symbols["networks"], codec.priors).deltas.q.values()
    )
    assert (codec.dequantise(symbols, geometry) - x).abs().max() < 0.15


def test_a_bit_is_worth_less_at_higher_quality():
    assert [lmbda_of(0), lmbda_of(50), lmbda_of(100)] == pytest.approx(
        [3e-2, (3e-2 * 8e-5) ** 0.5, 8e-5]
    )


def test_larger_pictures_get_networks_that_are_no_smaller():
    shipped = SHIPPED.load(SHIPPED.find("inr"))
    sizes = [preset.width for preset in PRESETS]
    for quality in range(0, 101, 5):
        chosen = [
            shipped.priors[shipped._prior_for(lmbda_of(quality), pixels)].preset.width
            for pixels in (1, 1 << 14, 1 << 17, 400_000, 1 << 20, 1 << 24)
        ]
        assert chosen == sorted(chosen)
        assert (chosen[0], chosen[-1]) == (sizes[0], sizes[-1])


def test_pictures_get_the_prior_of_the_nearest_lambda():
    codec = codec_of(*((HOP, random_networks(HOP, seed)) for seed in range(3)))
    lambdas = [prior.lmbda for prior in codec.priors]
    assert [codec._prior_for(lmbda, 1) for lmbda in lambdas] == [0, 1, 2]
    between = (lambdas[0] * lambdas[1]) ** 0.5
    assert [codec._prior_for(between * by, 1) for by in (1.1, 0.9)] == [0, 1]


def test_shipped_networks_look_at_coarser_grids():
    for prior in SHIPPED.load(SHIPPED.find("inr")).priors:
        reads = prior.values["arm.0.weight"][:, prior.preset.neighbours :]
        for level in range(IFCE_LEVELS):
            told = prior.values[f"ifce.{level}.weight"]
            assert np.abs(told).max() > 0.1
            assert np.abs(told[:, : len(HYPER_LEVELS)]).max() > 0.01
        assert np.abs(reads).max() > 0.1


def test_longer_fits_are_rounded_with_more_care():
    counts = [evaluations_after(steps) for steps in (0, 120, 2_000, 10_000, 1 << 30)]
    assert counts == sorted(counts)
    assert counts[0] == counts[1] < counts[2] < counts[4]

"""Networks of CompressAI, frozen: they compute what its equations say, and code what they count."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from codec.entropy import BitCounter, Decoder, Encoder
from codec.errors import ModelError, UsageError
from codec.models.base import Halo, TileGeometry
from codec.models.compressai import CompressAI
from codec.models.compressai.freezing import check_architecture, freeze
from codec.models.compressai.network import ARCHITECTURES
from codec.models.compressai.upsampling import Upsampling
from tests.models.compressai_states import LAYERS, PEDESTAL, state_of

HYPER = [arch for arch in ARCHITECTURES if arch != "bmshj2018-factorized"]
SIZES = [(64, 64), (1, 1), (70, 200), (150, 97)]


def photo(height: int, width: int) -> Tensor:
    """Something smooth with some noise, `(1, 3, height, width)` in [0, 1]."""
    generator = torch.Generator().manual_seed(height + width)
    coarse = torch.rand(1, 3, 2 + height // 16, 2 + width // 16, generator=generator)
    smooth = functional.interpolate(coarse, (height, width), mode="bilinear")
    return (smooth + 0.1 * torch.rand(smooth.shape, generator=generator)).clamp(0, 1)


# ---- the equations, as plain as they can be written, in the order and precision of the weights


def gdn(x: Tensor, state: dict[str, Tensor], name: str, *, inverse: bool) -> Tensor:
    gamma = state[f"{name}.gamma"] ** 2 - PEDESTAL
    beta = state[f"{name}.beta"] ** 2 - PEDESTAL
    norm = (torch.einsum("ij,njhw->nihw", gamma, x**2) + beta[:, None, None]).sqrt()
    return x * norm if inverse else x / norm


def analysis(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    for k in (0, 2, 4, 6):
        x = functional.conv2d(x, state[f"g_a.{k}.weight"], state[f"g_a.{k}.bias"], 2, 2)
        x = gdn(x, state, f"g_a.{k + 1}", inverse=False) if k < 6 else x
    return x


def up(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return functional.conv_transpose2d(x, weight, bias, 2, 2, output_padding=1)


def synthesis(y_hat: Tensor, state: dict[str, Tensor]) -> Tensor:
    for k in (0, 2, 4, 6):
        y_hat = up(y_hat, state, f"g_s.{k}")
        y_hat = gdn(y_hat, state, f"g_s.{k + 1}", inverse=True) if k < 6 else y_hat
    return y_hat


def hyper(y: Tensor, state: dict[str, Tensor], arch: str) -> tuple[Tensor, Tensor, Tensor]:
    """z's symbols, then scales and means of y."""
    slope = 0.01 if arch == "mbt2018-mean" else 0.0
    z = y if arch == "mbt2018-mean" else y.abs()
    z = functional.conv2d(z, state["h_a.0.weight"], state["h_a.0.bias"], 1, 1)
    for k in (2, 4):
        z = functional.leaky_relu(z, slope)
        z = functional.conv2d(z, state[f"h_a.{k}.weight"], state[f"h_a.{k}.bias"], 2, 2)
    medians = state["entropy_bottleneck.quantiles"][:, 0, 1][:, None, None]
    symbols = torch.round(z - medians)
    p = symbols + medians
    for k in (0, 2):
        p = functional.leaky_relu(up(p, state, f"h_s.{k}"), slope)
    p = functional.conv2d(p, state["h_s.4.weight"], state["h_s.4.bias"], 1, 1)
    if arch == "mbt2018-mean":
        scales, means = p.chunk(2, 1)
        return symbols, scales, means
    return symbols, p, torch.zeros_like(p)


def coded(x: Tensor, state: dict[str, Tensor], arch: str) -> tuple[Tensor, Tensor, Tensor]:
    """y's symbols, its scales (or its medians without z), and the pixels."""
    height, width = x.shape[2:]
    x = functional.pad(x, (0, -width % 64, 0, -height % 64), "replicate")
    h, w = -(-height // 16), -(-width // 16)
    y = analysis(x, state)
    if arch == "bmshj2018-factorized":
        means = state["entropy_bottleneck.quantiles"][:, 0, 1][:, None, None].expand_as(y)
        scales = means
    else:
        _, scales, means = hyper(y, state, arch)
    symbols = torch.round(y - means)[:, :, :h, :w]
    x_hat = synthesis(symbols + means[:, :, :h, :w], state)
    return symbols, scales[:, :, :h, :w], x_hat


@pytest.fixture(params=ARCHITECTURES)
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def state(arch: str) -> dict[str, Tensor]:
    return state_of(arch)


@pytest.fixture
def frozen(arch: str, state: dict[str, Tensor]) -> CompressAI:
    return freeze(state, arch)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_symbols_and_pixels_are_those_of_the_equations(
    arch: str, state: dict[str, Tensor], frozen: CompressAI, height: int, width: int
) -> None:
    x, geometry = photo(height, width), TileGeometry(height, width, 0)
    expected, _, x_hat = coded(x, state, arch)
    symbols = frozen.analyse(x, geometry, Halo())
    order = frozen.network.order
    found = torch.from_numpy(symbols["y"].reshape(expected.shape)).float()
    assert expected.abs().max() > 2
    # A sum in another order may tip a value that lies between two integers.
    tipped = (expected[:, order] != found).float().mean()
    assert tipped < 2e-3
    if tipped == 0:
        pixels = frozen.synthesise(frozen.dequantise(symbols, geometry), 0)
        torch.testing.assert_close(pixels, x_hat, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("arch", HYPER, indirect=True)
def test_a_scale_s_table_is_the_first_that_is_not_below_it(
    arch: str, state: dict[str, Tensor]
) -> None:
    state["h_s.4.weight"] *= 5  # scales of all sizes, and some below 0
    frozen = freeze(state, arch)
    x = photo(128, 192)
    scales = coded(x, state, arch)[1][0, frozen.network.order]
    z = hyper(analysis(x, state), state, arch)[0][0].int().numpy()
    assert frozen.coding.scales is not None
    found = frozen.coding.scales.indexes(z, 8, 12)
    table = torch.linspace(math.log(0.11), math.log(256), 64).exp()
    expected = torch.bucketize(scales, table[:-1]).numpy()
    assert len(np.unique(expected)) > 20
    assert np.abs(found - expected).max() <= 1  # where rounded weights tip it
    assert (found != expected).mean() < 0.02


@pytest.mark.parametrize("arch", HYPER, indirect=True)
def test_tables_of_scales_do_not_depend_on_threads(frozen: CompressAI) -> None:
    rng = np.random.default_rng(0)
    z = rng.integers(-300, 300, (8, 5, 7)).astype(np.int32)
    assert frozen.coding.scales is not None
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(frozen.coding.scales.indexes(z, 19, 26))
    torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])


def test_the_walk_gives_back_the_symbols_and_costs_what_was_counted(frozen: CompressAI) -> None:
    geometry = TileGeometry(150, 201, 0)
    symbols = frozen.analyse(photo(150, 201), geometry, Halo())
    encoder, counter = Encoder(), BitCounter()
    frozen.traverse(encoder, symbols, geometry)
    frozen.traverse(counter, symbols, geometry)
    streams = encoder.finish()
    assert tuple(streams) == frozen.streams
    decoder = Decoder(streams)
    found = frozen.traverse(decoder, None, geometry)
    decoder.finish()
    for key, expected in symbols.items():
        np.testing.assert_array_equal(expected, found[key])
    size = 8 * sum(map(len, streams.values()))
    assert counter.bits - 1 <= size <= 1.002 * counter.bits + 64 * len(streams)


def test_the_prior_costs_what_its_density_says(arch: str) -> None:
    state = state_of(arch)
    frozen = freeze(state, arch)
    medians = state["entropy_bottleneck.quantiles"][:, 0, 1].double()
    symbols = torch.arange(-6.0, 7.0, dtype=torch.float64)
    edges = medians[:, None] + torch.cat([symbols - 0.5, symbols[-1:] + 0.5])
    logits = edges[:, None]  # (C, 1, K); Ballé 2018, appendix 6.1
    for k in range(len(LAYERS) - 1):
        matrix, bias = (state[f"entropy_bottleneck.{n}.{k}"] for n in ("matrices", "biases"))
        logits = functional.softplus(matrix.double()) @ logits + bias.double()
        if k < len(LAYERS) - 2:
            factor = state[f"entropy_bottleneck.factors.{k}"].double()
            logits = logits + factor.tanh() * logits.tanh()
    expected = logits[:, 0].sigmoid().diff(dim=1).numpy()
    if arch == "bmshj2018-factorized":
        expected = expected[frozen.network.order.numpy()]
    tables = frozen.coding.prior
    rows = np.repeat(np.arange(len(expected), dtype=np.int32), len(symbols))
    entries = tables.entries(np.tile(symbols.numpy().astype(np.int32), len(expected)), rows)
    found = np.diff(tables.cdf.astype(np.float64), axis=1)[rows, entries] / 2**tables.precision
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0.01, atol=3e-5)


def test_layers_left_out_are_zero(frozen: CompressAI) -> None:
    geometry = TileGeometry(64, 128, 0)
    symbols = frozen.analyse(photo(64, 128), geometry, Halo())
    encoder = Encoder()
    frozen.traverse(encoder, symbols, geometry)
    core = frozen.network.config.groups[0]
    cut = TileGeometry(64, 128, 0, layers=0)
    found = frozen.traverse(Decoder(encoder.finish()), None, cut)["y"].reshape(-1, 4, 8)
    np.testing.assert_array_equal(symbols["y"].reshape(-1, 4, 8)[:core], found[:core])
    assert symbols["y"].reshape(-1, 4, 8)[core:].any()
    assert not found[core:].any()


def test_channels_that_vary_most_come_first(arch: str, frozen: CompressAI) -> None:
    if frozen.coding.scales is None:
        tables = frozen.coding.prior
        pmfs = np.diff(tables.cdf.astype(float), axis=1) / 2**tables.precision
        spread = []
        for pmf, size, first in zip(pmfs, tables.sizes, tables.offsets, strict=True):
            symbols = np.arange(first, first + size - 1)
            spread.append(np.cov(symbols, aweights=pmf[: size - 1], bias=True))
    else:
        indexes = frozen.coding.scales.indexes(np.zeros((8, 3, 3), np.int32), 12, 12)
        spread = indexes[:, 4:8, 4:8].mean((1, 2))
    assert np.ptp(spread) > 1
    # Table by table, of scales a ninth apart, or with probabilities in 2^-16.
    assert (np.diff(spread) <= 0.05 * np.max(spread)).all()
    assert frozen.network.config.groups == (3, 3, 3, 3)


def test_a_weight_file_holds_all_of_it(frozen: CompressAI) -> None:
    again = CompressAI.load(frozen.tensors(), frozen.metadata())
    geometry = TileGeometry(90, 70, 0)
    encoders = [Encoder(), Encoder()]
    for family, encoder in zip((frozen, again), encoders, strict=True):
        symbols = family.analyse(photo(90, 70), geometry, Halo())
        family.traverse(encoder, symbols, geometry)
    assert encoders[0].finish() == encoders[1].finish()
    assert {k: v.dtype for k, v in again.tensors().items()} == {
        k: v.dtype for k, v in frozen.tensors().items()
    }


def test_a_weight_file_that_lacks_a_tensor_is_refused(frozen: CompressAI) -> None:
    tensors, metadata = frozen.tensors(), frozen.metadata()
    for name in tensors:
        kept = {k: v for k, v in tensors.items() if k != name}
        with pytest.raises((KeyError, ValueError, RuntimeError)):
            CompressAI.load(kept, metadata)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (2, 9)])
def test_four_small_convolutions_are_the_transposed_one(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 6, *size, generator=generator)
    weight, bias = torch.randn(6, 4, 5, 5, generator=generator), torch.randn(4, generator=generator)
    expected = functional.conv_transpose2d(x, weight, bias, 2, 2, output_padding=1)
    torch.testing.assert_close(Upsampling(weight, bias)(x), expected, atol=1e-5, rtol=1e-5)


def test_decoding_costs_what_its_layers_multiply() -> None:
    N, M = 8, 12
    g_s = 25 * (M * N / 256 + N * N / 64 + N * N / 16 + 3 * N / 4) + N * N * (
        1 / 64 + 1 / 16 + 1 / 4
    )
    h_s = 25 * N * M / 4096 + 25 * M * 18 / 1024 + 9 * 18 * M / 256
    found = freeze(state_of("mbt2018-mean", N=N, M=M), "mbt2018-mean").decode_macs()
    assert found == pytest.approx(g_s + 2 * h_s)


# ---- state dicts


RELEASES = {
    "1.2.7": {"matrices": "matrices.", "biases": "biases.", "factors": "factors."},
    "1.1": {"matrices": "_matrix", "biases": "_bias", "factors": "_factor"},
    "1.0": {"matrices": "_matrices.", "biases": "_biases.", "factors": "_factors."},
}


@pytest.mark.parametrize("release", RELEASES)
def test_names_of_all_releases_give_the_same_codec(release: str, arch: str) -> None:
    renamed = {}
    for name, value in state_of(arch).items():
        part, _, rest = name.partition(".")
        if part == "entropy_bottleneck" and rest != "quantiles":
            kind, number = rest.split(".")
            name = f"{part}.{RELEASES[release][kind]}{number}"
        renamed[f"module.{name}"] = value
    expected, found = freeze(state_of(arch), arch).tensors(), freeze(renamed, arch).tensors()
    assert list(expected) == list(found)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("other", ARCHITECTURES)
def test_weights_of_another_architecture_are_refused(arch: str, other: str) -> None:
    if arch != other:
        with pytest.raises(ModelError, match=f"not of {other}"):
            freeze(state_of(arch), other)


def test_a_state_that_lacks_a_weight_is_refused(arch: str, state: dict[str, Tensor]) -> None:
    for name in state:
        with pytest.raises(ModelError, match=f"not of {arch}"):
            freeze({k: v for k, v in state.items() if k != name}, arch)


def test_a_state_with_a_weight_of_another_size_is_refused(
    arch: str, state: dict[str, Tensor]
) -> None:
    for name, value in state.items():
        with pytest.raises(ModelError, match=f"not of {arch}"):
            freeze(state | {name: value[1:]}, arch)


def test_a_state_with_a_weight_too_many_or_not_finite_is_refused(
    arch: str, state: dict[str, Tensor]
) -> None:
    with pytest.raises(ModelError, match="Gain"):
        freeze(state | {"Gain": torch.ones(3)}, arch)
    broken = state["g_a.0.weight"].clone()
    broken[0, 0, 0, 0] = math.nan
    with pytest.raises(ModelError, match=r"g_a\.0\.weight"):
        freeze(state | {"g_a.0.weight": broken}, arch)


@pytest.mark.parametrize(
    "name", ["mbt2018", "cheng2020-anchor", "cheng2020-attn", "elic2022-official"]
)
def test_a_serial_context_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(UsageError, match="one after another"):
        check_architecture(name)


def test_a_serial_context_is_refused_under_another_name_too() -> None:
    state = state_of("mbt2018-mean") | {"context_prediction.weight": torch.zeros(1)}
    with pytest.raises(UsageError, match="one after another"):
        freeze(state, "mbt2018-mean")


def test_an_unknown_architecture_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="bmshj2018-factorized, bmshj2018-hyperprior"):
        check_architecture("nothing")

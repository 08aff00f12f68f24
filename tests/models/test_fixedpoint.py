"""The integer network against a slow reference, and against the float network it came from."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codec.entropy.fixedpoint import FixedLayer, quantise_layer
from codec.models.context import magnitudes
from codec.models.fixed import IntegerLayer, depthwise, pointwise, to_fixed
from codec.models.iscs import IscsConfig, IscsNetwork
from codec.models.scales import FixedScales

CPU = torch.device("cpu")


def batched(x: np.ndarray, count: int = 2) -> torch.Tensor:
    """The same `count` times, as float64, the last one negated."""
    signs = torch.ones(count, 1, 1, 1, dtype=torch.float64)
    signs[-1] = -1
    return torch.from_numpy(x.astype(float)) * signs


def requantised(total: int, shift: int) -> int:
    """The rounding of docs/format/iscs.md in Python's unbounded integers."""
    rounded = (total + (1 << shift >> 1)) >> shift
    return max(-32767, min(32767, rounded))


@given(st.integers(0, 2**32 - 1), st.integers(0, 30))
def test_a_pointwise_layer_is_integer_arithmetic(seed: int, shift: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.integers(-32767, 32768, (3, 5))
    bias = rng.integers(-(2**34), 2**34, 3)
    x = rng.integers(-32767, 32768, (5, 2, 2))
    layer = FixedLayer(weight.astype(float), bias.astype(float), shift)
    found = pointwise(batched(x), IntegerLayer.on(layer, CPU))
    for sign, o, i, j in np.ndindex(2, 3, 2, 2):
        total = sum(int(weight[o, c]) * int(x[c, i, j]) for c in range(5))
        total = int(bias[o]) + (-total if sign else total)
        assert found[sign, o, i, j] == requantised(total, shift)


@given(st.integers(0, 2**32 - 1), st.integers(0, 30))
def test_a_depthwise_layer_is_integer_arithmetic(seed: int, shift: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.integers(-32767, 32768, (2, 3, 3))
    bias = rng.integers(-(2**34), 2**34, 2)
    x = rng.integers(-32767, 32768, (2, 3, 2))
    layer = FixedLayer(weight.astype(float), bias.astype(float), shift)
    found = depthwise(batched(x), IntegerLayer.on(layer, CPU))
    for sign, c, i, j in np.ndindex(2, 2, 3, 2):
        total = 0
        for di, dj in np.ndindex(3, 3):
            row, column = i + di - 1, j + dj - 1
            if 0 <= row < 3 and 0 <= column < 2:
                total += int(weight[c, di, dj]) * int(x[c, row, column])
        total = int(bias[c]) + (-total if sign else total)
        assert found[sign, c, i, j] == requantised(total, shift)


def test_a_layer_of_fractions_is_refused() -> None:
    with pytest.raises(ValueError, match="integers"):
        FixedLayer(np.full((1, 1), 0.5), np.zeros(1), 0)


def test_a_quantised_layer_is_close_to_the_real_one() -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(0, 0.2, (8, 16)), rng.normal(0, 1, 8)
    x = rng.normal(0, 3, (16, 4, 4))
    exact = (weight @ x.reshape(16, -1)).reshape(8, 4, 4) + bias[:, None, None]
    layer = IntegerLayer.on(quantise_layer(weight, bias), CPU)
    fixed = pointwise(batched(np.rint(x * 256), 1) * -1, layer)[0] / 256
    np.testing.assert_allclose(exact, fixed, atol=0.02)


def test_levels_of_the_integer_network_are_the_float_ones_rounded() -> None:
    torch.manual_seed(3)
    network = IscsNetwork(IscsConfig(M=8, inner=8, Z=4, hyper=8, context=8, groups=(3, 5)))
    torch.nn.init.normal_(network.h_s_scale.leave.weight, std=0.5)
    torch.nn.init.uniform_(network.h_s_scale.level.knots, 10, 50)
    for context in network.scale_context:
        for parameter in context.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    z = torch.randint(-3, 4, (1, 4, 5, 7))
    seen = torch.randint(-20, 21, (3, 20, 27))
    fixed = FixedScales.freeze(network.h_s_scale, network.scale_context, 64)
    levels = fixed.on(CPU)
    said = levels.of_z(to_fixed(z.int()), 37, 20, 27)
    with torch.no_grad():
        hidden = network.h_s_scale.hidden(z.float())
        of_z = network.h_s_scale(hidden, torch.tensor([37.0]))[:, :, :, :27]
        found = magnitudes(seen)[None]
        contexts = [context(found, hidden[:, :, :, :27]) for context in network.scale_context]
    for step in range(5):
        channels = slice(3) if step < 4 else slice(3, None)
        change = contexts[step - 1] if step else torch.zeros(1)
        real = (of_z[:, channels] + change).clamp(0, 63)
        integers = levels.indexes(said, channels, step, seen.int()[None])
        assert (real - integers).abs().max() < 0.6

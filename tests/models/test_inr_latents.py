import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codec.entropy import BitCounter, Decoder, Encoder, Method
from codec.errors import BitstreamError
from codec.models.inr.latents import BIAS_MAX, WEIGHT_MAX, LatentModel
from codec.models.inr.layout import CONTEXTS, GRIDS, PRESETS, grid_sizes, shapes
from codec.models.inr.tables import laplace_tables
from tests.models import inr_reference

TABLES = laplace_tables()
ALL = [True] * len(GRIDS)


def network(preset, rng, spread):
    """Integers of a network; from `spread` 1 on they meet their limits."""
    integers = {}
    for name, shape in shapes(preset).items():
        if name.startswith(("arm", "ifce")):
            most = WEIGHT_MAX if name.endswith("weight") else BIAS_MAX
            value = rng.laplace(size=shape) * spread * most
            integers[name] = np.rint(np.clip(value, -most, most)).astype(np.int64)
    return integers


def latents(sizes, coded, rng, spread):
    count = sum(h * w for (h, w), some in zip(sizes, coded, strict=True) if some)
    return np.clip(np.rint(rng.laplace(size=count) * spread), -2048, 2047).astype(np.int32)


def operations_of_the_oracle(preset, integers, height, width, coded, symbols):
    code, ops = inr_reference.operations(symbols.tolist(), TABLES)
    inr_reference.walk(integers, height, width, coded, preset.neighbours, preset.inputs, code)
    return ops


CASES = {
    "preset": st.sampled_from(PRESETS),
    "height": st.integers(1, 20),
    "width": st.integers(1, 20),
    "spread": st.sampled_from([0.0, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 100.0]),
    "loudness": st.sampled_from([0.0, 0.3, 3.0, 100.0, 5000.0]),
    "coded": st.lists(st.booleans(), min_size=len(GRIDS), max_size=len(GRIDS)),
    "seed": st.integers(0, 2**32 - 1),
}


def test_the_oracle_has_the_same_layout():
    assert CONTEXTS == inr_reference.CONTEXTS
    assert [(grid.level, grid.hyper) for grid in GRIDS] == inr_reference.GRIDS


@settings(max_examples=60, deadline=None)
@given(**CASES)
@example(PRESETS[2], 19, 17, 100.0, 5000.0, ALL, 0)
@example(PRESETS[1], 16, 33, 1e-3, 3.0, ALL, 1)
@example(PRESETS[2], 15, 16, 1e-2, 0.0, [n in (5, 7, 8, 9) for n in range(10)], 8)
def test_operations_are_the_oracles_and_come_back(
    preset, height, width, spread, loudness, coded, seed
):
    rng = np.random.default_rng(seed)
    sizes = grid_sizes(height, width)
    integers, symbols = (
        network(preset, rng, spread),
        latents(sizes, coded, rng, loudness),
    )
    model = LatentModel(preset, integers, TABLES, sizes, coded)
    assert model.count == len(symbols)

    expected = operations_of_the_oracle(preset, integers, height, width, coded, symbols)
    assert expected == [divmod(int(op), 2**16) for op in model.operations(symbols)]

    encoder, counter = Encoder(), BitCounter()
    for coder in (encoder, counter):
        coder.open("y", Method.RANS).code_causal(symbols, model)
    stream = encoder.finish()
    decoder = Decoder(stream)
    np.testing.assert_array_equal(symbols, decoder.open("y", Method.RANS).code_causal(None, model))
    decoder.finish()
    # Lanes' last states, a header, and the fractions that each symbol loses to whole states.
    assert counter.bits - 1 <= 8 * len(stream["y"]) <= 1.001 * counter.bits + 8 * 6


def test_halves_are_rounded_up_everywhere():
    preset = PRESETS[0]
    integers = network(preset, np.random.default_rng(0), 0.0)
    for name, value in integers.items():
        if name.startswith("ifce") and name.endswith("bias"):
            value[:] = 128  # half a unit of an activation
        if name.startswith("arm") and name.endswith("bias"):
            value[:] = [2**14, 2**16] if "out" in name else 128  # half a phase, half a scale
        if name in ("arm.out.weight", "arm.skip.weight"):
            value[0] = 2**14  # of two features or more, whole phases
    sizes, symbols = grid_sizes(3, 3), np.zeros(21, np.int32)
    expected = operations_of_the_oracle(preset, integers, 3, 3, ALL, symbols)
    model = LatentModel(preset, integers, TABLES, sizes, ALL)
    assert expected == [divmod(int(op), 2**16) for op in model.operations(symbols)]


@settings(max_examples=60, deadline=None)
@given(
    preset=CASES["preset"],
    spread=CASES["spread"],
    lanes_log2=st.integers(0, 3),
    length=st.sampled_from([0, 7, 40, 1000]),
    seed=CASES["seed"],
)
def test_noise_decodes_to_what_the_oracle_reads_or_is_refused(
    preset, spread, lanes_log2, length, seed
):
    rng = np.random.default_rng(seed)
    sizes = grid_sizes(9, 12)
    integers = network(preset, rng, spread)
    model = LatentModel(preset, integers, TABLES, sizes, ALL)
    words = rng.integers(0, 2**16, length)
    states = rng.integers(2**24, 2**40, 1 << lanes_log2)

    code = inr_reference.decoding(words.tolist(), states.tolist(), TABLES)
    grids = inr_reference.walk(integers, 9, 12, ALL, preset.neighbours, preset.inputs, code)
    expected = np.concatenate([np.ravel(grid) for grid in grids])

    padded, own = np.append(words, 0).astype(np.uint16), states.astype(np.uint64)
    if expected.min() < -2048 or expected.max() > 2047:
        with pytest.raises(BitstreamError, match="latents"):
            model.decode(padded, 0, own, 0)
        return
    found, _, _ = model.decode(padded, 0, own, 0)
    np.testing.assert_array_equal(expected, found)


@pytest.mark.parametrize("latent", [-2049, 2048])
def test_latents_outside_their_range_are_refused(latent):
    integers = network(PRESETS[0], np.random.default_rng(0), 0.0)
    model = LatentModel(PRESETS[0], integers, TABLES, grid_sizes(1, 1), ALL)
    symbols = np.zeros(10, np.int32)
    symbols[4] = latent
    with pytest.raises(ValueError, match=r"-2048\.\.2047"):
        model.operations(symbols)


def test_sums_at_their_limits_are_exact_in_floating_point():
    # The largest sum: 20 products and a bias in the output, from both halves of its input.
    largest = 2 * 20 * (WEIGHT_MAX + 256) * 2**31 + BIAS_MAX
    assert largest < 2**53

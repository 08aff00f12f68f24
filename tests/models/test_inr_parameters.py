import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codec.models.inr.latents import BIAS_MAX, WEIGHT_MAX
from codec.models.inr.layout import PRESETS, shapes
from codec.models.inr.parameters import (
    GROUPS,
    Deltas,
    Prior,
    codes,
    floats,
    group_of,
    integers,
    quantise,
)
from codec.models.inr.steps import FIRST, best_scale, choose_steps
from codec.models.inr.tables import laplace_tables

PRESET = PRESETS[0]
TABLES = laplace_tables()


def values_of(number):
    return {name: np.full(shape, number) for name, shape in shapes(PRESET).items()}


ZERO = Prior(PRESET, 1e-3, values_of(0.0))


def deltas(prior, wanted, exponent):
    """All tensors quantised with one exponent, or the group's largest."""
    exponents = {group: min(exponent, most) for group, most in GROUPS.items()}
    q = {n: quantise(n, v, prior, exponents[group_of(n)]) for n, v in wanted.items()}
    return Deltas(exponents, {name: best_scale(value, TABLES)[0] for name, value in q.items()}, q)


def test_every_tensor_has_a_group():
    for preset in PRESETS:
        assert {group_of(name) for name in shapes(preset)} == set(GROUPS)


@given(st.floats(-3, 3), st.floats(-1, 1), st.integers(0, 16))
def test_quantised_networks_are_within_half_a_step(wanted, before, exponent):
    before = round(before * 256) / 256
    prior = Prior(PRESET, 1e-3, values_of(before))
    found = deltas(prior, values_of(wanted), exponent)
    for name, value in found.values(prior).items():
        step = 2.0 ** -found.exponents[group_of(name)]
        assert np.abs(value - wanted).max() <= step / 2


@given(st.sampled_from([1e-6, 0.3, 40.0, 1e5, math.inf, math.nan]), st.integers(0, 16))
def test_networks_that_code_are_integers_within_their_limits(number, exponent):
    found = deltas(ZERO, values_of(number), exponent)
    networks = integers(found.values(ZERO))
    assert set(networks) == {name for name in shapes(PRESET) if codes(name)}
    for name, value in networks.items():
        unit = 2**8 if name.endswith("weight") else 2**20
        exact = found.q[name] * 2.0 ** -found.exponents[group_of(name)] * unit
        most = WEIGHT_MAX if name.endswith("weight") else BIAS_MAX
        np.testing.assert_array_equal(np.clip(exact, -most, most), value)


def test_networks_for_pixels_are_floats_with_a_picture_in_front():
    for name, value in floats(values_of(0.25), torch.device("cpu")).items():
        assert value.dtype == torch.float32
        assert value.shape == (1, *shapes(PRESET)[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arm.0.weight": np.full((8, 8), 2.0**-9)}, "multiples of 0.0039"),
        ({"arm.0.weight": np.full((8, 8), 128.0)}, "multiples"),
        ({"ifce.0.bias": np.full(2, 2.0**-17)}, "multiples"),
        ({"syn.out.bias": np.full(3, np.nan)}, "finite"),
        ({"syn.out.bias": np.zeros(4)}, "preset lop"),
        ({"more": np.zeros(4)}, "preset lop"),
    ],
)
def test_priors_that_no_weight_file_can_hold_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Prior(PRESET, 1e-3, values_of(0.0) | change)


def test_the_best_scale_is_the_cheapest_of_all():
    rng = np.random.default_rng(0)
    q = np.rint(rng.laplace(size=(40, 3)) * 5).astype(np.int32)
    found, bits = best_scale(q, TABLES)
    assert abs(found - (24 + 8 * math.log(5))) < 4
    assert bits / q.size == pytest.approx(math.log2(2 * math.e * 5), rel=0.05)
    assert best_scale(np.zeros(9, np.int32), TABLES) == (0, 0.0)


def search(target, prior, *, worth, evaluations=40, sensitive=None):
    """Choose steps where cost is squared distance to `target`, of some tensors or all."""
    asked = []

    def distance(of_codes):
        def cost(networks):
            asked.append(networks)
            return sum(
                float((networks[name][0] - torch.from_numpy(target[name])).square().sum())
                for name in target
                if codes(name) == of_codes and (sensitive is None or name in sensitive)
            )

        return cost

    found = choose_steps(
        target,
        prior,
        rate=distance(True),
        distortion=distance(False),
        bits_worth=worth,
        tables=TABLES,
        device=torch.device("cpu"),
        evaluations=evaluations,
    )
    return found, len(asked)


def noise(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.laplace(size=shape) / 4 for name, shape in shapes(PRESET).items()}


def test_steps_are_finer_where_bits_are_cheaper():
    target = noise()
    dear, cheap = (search(target, ZERO, worth=worth)[0] for worth in (1e-2, 1e-7))
    assert dear.exponents["arm.weight"] < FIRST["arm.weight"] < cheap.exponents["arm.weight"]
    error = [
        sum(np.square(d.values(ZERO)[name] - target[name]).sum() for name in target)
        for d in (dear, cheap)
    ]
    assert error[1] < error[0] / 10


def test_a_prior_that_is_good_enough_is_taken_as_it_is():
    target = {name: np.rint(value * 256) / 256 for name, value in noise().items()}
    found, _ = search(target, Prior(PRESET, 1e-3, target), worth=1e-6)
    assert not any(found.scales.values())
    assert not any(found.exponents.values())
    assert not any(q.any() for q in found.q.values())


def test_networks_that_do_not_matter_are_skipped_with_few_questions():
    found, _ = search(noise(), ZERO, worth=1e-4, evaluations=14, sensitive=set())
    assert not any(found.scales.values())


def test_a_single_tensor_that_does_not_matter_is_skipped():
    sensitive = set(shapes(PRESET)) - {"syn.in.weight"}
    found, _ = search(noise(), ZERO, worth=1e-4, sensitive=sensitive)
    assert {name for name, scale in found.scales.items() if not scale} == {"syn.in.weight"}
    assert not found.q["syn.in.weight"].any()


@pytest.mark.parametrize("evaluations", [7, 20, 40])
def test_costs_are_asked_for_no_more_often_than_allowed(evaluations):
    found, asked = search(noise(), ZERO, worth=1e-4, evaluations=evaluations)
    assert asked <= evaluations
    assert set(found.q) == set(shapes(PRESET))


def test_more_questions_give_networks_that_cost_less():
    target, worth = noise(), 1e-3

    def total(evaluations):
        found, _ = search(target, ZERO, worth=worth, evaluations=evaluations)
        values = found.values(ZERO)
        error = sum(np.square(values[name] - target[name]).sum() for name in target)
        return error + worth * sum(best_scale(q, TABLES)[1] for q in found.q.values())

    steps_alone, some, all_of_them = (total(evaluations) for evaluations in (30, 200, 4000))
    assert all_of_them < some < steps_alone


def test_integers_move_until_neither_direction_is_any_good():
    _, asked = search(noise(), ZERO, worth=1e-3, evaluations=1_000_000)
    assert asked < 20_000


def test_a_cost_that_is_no_number_leaves_the_prior():
    found = choose_steps(
        noise(),
        ZERO,
        rate=lambda networks: math.nan,
        distortion=lambda networks: math.nan,
        bits_worth=1.0,
        tables=TABLES,
        device=torch.device("cpu"),
    )
    assert not any(found.scales.values())

"""Gaussians fitted to pictures: better than where they began, and still where nothing moves."""

import subprocess
import sys
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import codec
from codec.cameras import Camera
from codec.datasets.analytic import analytic
from codec.errors import UsageError
from codec.gaussians import Gaussians
from codec.models.base import Search
from codec.models.gauss.descent import apart
from codec.models.gauss.fitting import Fitting, fit
from codec.models.gauss.following import Gating, followed_by, realised
from codec.models.gauss.growing import detail, first_guess, grown
from codec.models.gauss.lattice import Rows, gaussians_of, key_rows
from codec.models.gauss.planning import planned
from codec.models.gauss.render import render
from tests.scene_frames import assert_same, moving

SCENE = analytic(frames=3, cameras=5, size=(48, 36))
CAMERAS = SCENE.cameras
PICTURES = [SCENE.frame(number) for number in range(3)]
QUICK = Fitting(gaussians=200, steps=160, epochs=8)


def chance():
    return np.random.default_rng(0)


def psnr(gaussians, pictures):
    errors = [
        np.square(render(gaussians, camera) - picture / 255).mean()
        for camera, picture in zip(CAMERAS, pictures, strict=True)
    ]
    return -10 * np.log10(np.mean(errors))


@pytest.fixture(scope="module")
def guess():
    return first_guess(CAMERAS, PICTURES[0], detail(PICTURES[0]), 75, 0, chance())


@pytest.fixture(scope="module")
def fitted():
    plan, moments = fit(CAMERAS, PICTURES, 60, QUICK)
    return plan, list(moments)


def rows_of(gaussians, plan):
    return key_rows(gaussians, plan)[0]


def follow(gaussians, before, now, moved=0, **changes):
    """Rows before, rows after and their motion, on a lattice of its own."""
    plan = planned([gaussians], 60)
    rows = rows_of(gaussians, plan)
    still = np.full_like(rows.base, moved)
    options = {"most": len(gaussians), "epochs": 4, "gating": Gating(), "pace": 1.0, **changes}
    found, motion = followed_by(
        rows, still, plan, CAMERAS, before, now,
        generator=chance(), due=lambda share: share, **options,
    )  # fmt: skip
    return rows, found, motion


def test_the_loss_is_that_of_l1_and_ssim():
    from skimage.metrics import structural_similarity

    rng = chance()
    a, b = rng.uniform(size=(2, 20, 30, 3))
    # Black around, so that it does not matter what a filter takes to be beyond the border.
    a, b = (np.pad(x, ((12, 12), (12, 12), (0, 0))) for x in (a, 0.7 * a + 0.3 * b))
    _, each = structural_similarity(
        a, b, channel_axis=2, gaussian_weights=True, sigma=1.5, data_range=1,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    expected = 0.8 * np.abs(a - b).mean() + 0.2 * (1 - each.mean())
    found = float(apart(torch.from_numpy(a), torch.from_numpy(b)))
    assert found == pytest.approx(expected, rel=1e-6)


def test_gradients_of_the_loss_are_those_of_its_values():
    generator = torch.Generator().manual_seed(0)
    x, x_hat = (torch.rand(5, 6, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    x_hat.requires_grad_()
    assert torch.autograd.gradcheck(lambda given: apart(given, x), x_hat)


def test_the_first_guess_lies_where_cameras_agree(guess):
    # A third of the things are no nearer to the cameras than 2 and none is beyond the wall's place.
    depths = guess.means @ CAMERAS[2].world_to_camera[2, :3] + CAMERAS[2].world_to_camera[2, 3]
    truth = 4.4
    assert 0.5 * truth < np.median(depths) < 2 * truth
    assert psnr(guess, PICTURES[0]) > psnr(guess.take(slice(0, 0)), PICTURES[0])


def test_cameras_that_see_nothing_in_common_are_refused():
    away = Camera.looking(eye=(0, 0, 0), at=(0, 0, -9), width=48, height=36, field=60)
    here = Camera.looking(eye=(0, 0, 0.5), at=(0, 0, 9), width=48, height=36, field=60)
    with pytest.raises(UsageError, match="overlap"):
        first_guess((away, here), PICTURES[0][:2], detail(PICTURES[0][:2]), 20, 0, chance())


def test_fitting_gains_decibels_over_the_guess(guess):
    found = grown(
        guess,
        CAMERAS,
        PICTURES[0],
        steps=160,
        most=150,
        generator=chance(),
        due=lambda share: share,
    )
    assert 75 < len(found) <= 150
    assert psnr(found, PICTURES[0]) > psnr(guess, PICTURES[0]) + 3


def test_later_moments_gain_decibels_over_staying(fitted):
    _, moments = fitted
    assert psnr(moments[1], PICTURES[1]) > psnr(moments[0], PICTURES[1]) + 0.3


def test_numbers_between_whole_ones_mean_what_whole_ones_mean():
    gaussians = moving(200, 1, degree=1)[0]
    plan = planned([gaussians], 60)
    rows = rows_of(gaussians, plan)
    cloud = realised(torch.from_numpy(np.concatenate(rows, 1)).double(), plan)
    expected = gaussians_of(rows, plan)
    for name, part in zip(cloud._fields, cloud, strict=True):
        np.testing.assert_allclose(part.numpy(), getattr(expected, name), rtol=1e-4, atol=1e-5)


def test_what_is_behind_shut_gates_is_equal_to_the_bit(fitted):
    _, (before, after, _) = fitted
    # Most of this scene stands still.
    flat = [
        np.concatenate(
            [getattr(each, field.name).reshape(len(each), -1) for field in fields(each)], 1
        )
        for each in (before, after)
    ]
    kept = {row.tobytes() for row in flat[0]} & {row.tobytes() for row in flat[1]}
    assert 0.5 * len(before) < len(kept) < len(before)


def test_gates_that_nothing_opens_let_nothing_through(guess):
    # All scores are 0 but for the noise of one camera's corner, and openness is dear.
    now = PICTURES[0].copy()
    now[0, 0, 0] ^= 1
    rows, found, motion = follow(
        guess, PICTURES[0], now, moved=4000, gating=Gating(sparsity=10.0, rate=1.0)
    )
    np.testing.assert_array_equal(found.base, rows.base)
    assert not motion.any()


@pytest.mark.parametrize("gating", [Gating(regions=False), Gating(own=False)])
def test_each_kind_of_gate_shuts_by_itself(guess, gating):
    _, _, moved = follow(guess, PICTURES[0], PICTURES[1], gating=replace(gating, rate=0.0))
    shut = replace(gating, sparsity=10.0, rate=0.0)
    _, _, held = follow(guess, PICTURES[0], PICTURES[1], gating=shut)
    assert moved.any()
    assert not held.any()


def test_bits_that_cost_more_are_fewer(guess):
    changed = []
    for rate in (0.0, 1e-2):
        _, _, motion = follow(guess, PICTURES[0], PICTURES[1], gating=Gating(rate=rate))
        changed.append(int((motion != 0).sum()))
    assert changed[1] < 0.5 * changed[0]


def test_a_scene_that_stands_still_costs_almost_nothing():
    _, moments = fit(CAMERAS, [PICTURES[0]] * 4, 60, replace(QUICK, steps=20))
    frames = list(moments)
    for frame in frames[1:]:
        assert_same(frame, frames[0])
    sizes = [len(codec.encode_scene(frames[:count])) for count in (1, 4)]
    assert sizes[1] - sizes[0] < 3 * 30


def test_what_appears_is_born_and_what_is_faint_is_dropped(guess):
    now = PICTURES[0].copy()
    now[:, 8:20, 8:30] = (255, 255, 255)
    _, found, _ = follow(guess, PICTURES[0], now, most=len(guess) + 40)
    plan = planned([guess], 60)
    assert len(found.base) > len(guess)
    faint = replace(guess, opacities=np.where(np.arange(len(guess)) < 9, -9, 1).astype(np.float32))
    _, found, motion = follow(faint, PICTURES[0], PICTURES[1])
    assert len(found.base) <= len(guess) - 9
    assert len(motion) == len(found.base)
    assert isinstance(gaussians_of(found, plan), Gaussians)


def test_finer_steps_follow_as_far(fitted):
    _, finer = fit(CAMERAS, PICTURES, 90, QUICK)
    assert psnr(list(finer)[-1], PICTURES[-1]) > psnr(fitted[1][-1], PICTURES[-1])


def test_the_same_seed_gives_the_same_scene(fitted):
    _, again = fit(CAMERAS, PICTURES[:2], 60, QUICK)
    for a, b in zip(fitted[1][:2], again, strict=True):
        assert_same(a, b)
    _, other = fit(CAMERAS, PICTURES[:1], 60, replace(QUICK, seed=1))
    assert next(other).means.tobytes() != fitted[1][0].means.tobytes()


def test_rounding_costs_a_fitted_scene_nothing(fitted):
    plan, moments = fitted
    rows = [rows_of(moment, plan) for moment in moments]
    for moment, found in zip(moments, rows, strict=True):
        back = gaussians_of(found, plan)
        order = np.lexsort(np.concatenate([moment.means, moment.sh[:, 0]], 1).T)
        again = np.lexsort(np.concatenate([back.means, back.sh[:, 0]], 1).T)
        for name in ("means", "scales", "opacities", "sh"):
            a, b = getattr(moment, name)[order], getattr(back, name)[again]
            np.testing.assert_allclose(np.sort(a, -1), np.sort(b, -1), rtol=1e-6, atol=1e-6)


def test_moments_are_made_when_they_are_asked_for():
    taken = []

    def source():
        for number in range(3):
            taken.append(number)
            yield PICTURES[number]

    _, moments = fit(CAMERAS, source(), 60, replace(QUICK, steps=4, epochs=1))
    assert taken == [0]
    for number, _ in enumerate(moments):
        assert taken == list(range(number + 1))


def test_time_that_is_over_ends_the_search():
    search = Search(seconds=1e-6)
    due = QUICK.clock(CAMERAS, 3, search)
    _, moments = fit(CAMERAS, PICTURES, 60, QUICK, due)
    frames = list(moments)
    assert len(frames) == 3
    for before, after in pairwise(frames):
        assert_same(before, after)


def test_the_clock_of_a_fit_starts_when_kernels_are_compiled():
    code = """if True:
        from codec.models.base import Search
        from codec.models.gauss import fitting, kernels, reals, walk
        from codec.moving import encode_planned, find_scene_model
        from codec.progress import Stopwatch
        from codec.weights import SHIPPED
        from tests.models.test_gauss_fitting import CAMERAS, PICTURES

        def known():
            each = [value for module in (kernels, reals, walk) for value in vars(module).values()]
            return [value.signatures for value in each if hasattr(value, "signatures")]

        at_start = []

        def clock(*values):
            at_start.extend(map(list, known()))
            return lambda moment, share: max(share, 0.5)

        fitting.Fitting.clock = clock
        model = find_scene_model("gauss", SHIPPED)
        plan, moments = model.family.fit(CAMERAS, PICTURES[:2], 2, 60, Search())
        encode_planned(moments, plan, model, 60, watch=Stopwatch())
        assert sum(map(len, at_start)) > 0
        assert at_start == known()
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_more_effort_is_more_of_everything_and_more_pixels_more_gaussians():
    each = [Fitting.of(effort, 128 * 96) for effort in range(10)]
    assert all(a.steps < b.steps and a.epochs < b.epochs for a, b in pairwise(each))
    assert Fitting.of(0, 1).gaussians < each[0].gaussians < Fitting.of(0, 640 * 480).gaussians
    assert Fitting.of(9, 1 << 26).gaussians <= 1 << 17


def test_progress_goes_from_start_to_end():
    told = []
    due = QUICK.clock(CAMERAS, 2, Search(watch=lambda part, note: told.append(part)))
    _, moments = fit(CAMERAS, PICTURES[:2], 60, replace(QUICK, steps=10, epochs=2), due)
    list(moments)
    assert told == sorted(told)
    assert told[0] == 0
    assert 0.9 < told[-1] <= 1


def test_rows_are_kept_as_they_are_by_pictures_that_do_not_change(guess):
    rows, found, motion = follow(guess, PICTURES[0], PICTURES[0])
    assert isinstance(found, Rows)
    np.testing.assert_array_equal(found.base, rows.base)
    assert not motion.any()

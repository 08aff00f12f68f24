import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.datasets.scenes import scripted

NAMES = ("means", "quats", "scales", "opacities", "sh")


def changed(before, after, name):
    a, b = getattr(before, name), getattr(after, name)
    return (a != b).reshape(len(a), -1).any(1)


@given(st.integers(1, 300), st.integers(0, 3), st.integers(0, 5))
def test_the_same_arguments_give_the_same_scene(count, degree, seed):
    a, b = (scripted(count, frames=3, degree=degree, turnover=0.3, seed=seed) for _ in range(2))
    for number in range(3):
        assert a.frame(number).degree == degree
        np.testing.assert_array_equal(a.ids(number), b.ids(number))
        for name in NAMES:
            np.testing.assert_array_equal(
                getattr(a.frame(number), name), getattr(b.frame(number), name)
            )


def test_another_seed_gives_another_scene():
    a, b = (scripted(50, frames=1, seed=seed).frame(0) for seed in (0, 1))
    assert (a.means != b.means).any()


@pytest.mark.parametrize("share", [0.02, 0.1])
def test_only_the_share_that_moves_changes_and_it_moves_as_one_body(share):
    scene = scripted(2000, frames=9, degree=1, moving=share)
    before, after = scene.frame(4), scene.frame(5)
    np.testing.assert_array_equal(changed(before, after, "means"), scene.moving)
    np.testing.assert_array_equal(changed(before, after, "quats"), scene.moving)
    assert scene.moving.sum() == share * 2000
    for name in ("scales", "opacities", "sh"):
        assert not changed(before, after, name).any()
    a, b = (frame.means[scene.moving].astype(np.float64) for frame in (before, after))
    distances = [np.linalg.norm(x[:, None] - x[None], axis=2) for x in (a, b)]
    np.testing.assert_allclose(*distances, atol=1e-5)


def test_rotations_turn_with_the_body():
    scene = scripted(2000, frames=30, moving=0.1)
    moving = scene.moving
    for number in (0, 29):
        frame = scene.frame(number)
        quats = frame.quats[moving].astype(np.float64)
        w, x, y, z = (quats / np.linalg.norm(quats, axis=1, keepdims=True)).T
        third = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], 1)
        means = frame.means[moving]
        low, high = means.min(0), means.max(0)
        outward = (means - (low + high) / 2) / 0.45
        # Thin along the normal, as the wobble allows.
        assert np.median((third * outward).sum(1)) > 0.98


def test_flicker_changes_colour_alone():
    scene = scripted(1000, frames=5, degree=2, moving=0, flicker=0.1)
    before, after = scene.frame(1), scene.frame(2)
    np.testing.assert_array_equal(changed(before, after, "sh"), scene.flickers)
    assert scene.flickers.sum() == 100
    np.testing.assert_array_equal(before.sh[:, 1:], after.sh[:, 1:])
    assert not any(changed(before, after, name).any() for name in NAMES[:4])


def test_those_that_are_born_and_die_keep_their_numbers():
    scene = scripted(1000, frames=10, turnover=0.2)
    numbers = [scene.ids(number) for number in range(10)]
    there = np.array([np.isin(np.arange(1000), ids) for ids in numbers])
    assert (~there).any(0).sum() == 200
    assert there.any(0).all()
    assert (np.diff(there.astype(int), axis=0) == 1).sum(0).max() == 1  # nobody comes back
    for number, ids in enumerate(numbers):
        frame = scene.frame(number)
        assert len(frame) == len(ids)
        np.testing.assert_array_equal(frame.scales, scene.start.scales[ids])


def test_neighbours_are_alike_and_gaussians_are_flat():
    frame = scripted(4000, frames=1, degree=3).frame(0)
    distance = ((frame.means[:500, None] - frame.means[None]) ** 2).sum(2)
    distance[np.arange(500), np.arange(500)] = np.inf
    near = distance.argmin(1)
    for name in ("scales", "sh"):
        values = getattr(frame, name)[..., 0].reshape(4000, -1)[:, 0]
        assert np.corrcoef(values[:500], values[near])[0, 1] > 0.5
    assert np.median(frame.scales[:, 2] - frame.scales[:, 0]) < -1.5
    high = frame.opacities > 0
    assert 0.4 < high.mean() < 0.9


@pytest.mark.parametrize(
    "wrong",
    [{"count": 0}, {"frames": 0}, {"degree": 4}, {"moving": 1.1}, {"flicker": -0.1}],
)
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="want"):
        scripted(**{"count": 10, "frames": 2, **wrong})


@pytest.mark.parametrize("number", [-1, 2])
def test_there_is_no_frame_before_the_first_or_after_the_last(number):
    with pytest.raises(IndexError):
        scripted(10, frames=2).frame(number)

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y

from codec.cameras import Camera
from codec.gaussians import Gaussians
from codec.models.gauss.projection import colours, project, rotations
from codec.models.gauss.raster import rasterize
from codec.models.gauss.render import render

CAMERA = Camera.looking(eye=(0.3, -0.2, -4), at=(0, 0, 0), width=64, height=48, field=60)


def one(mean=(0, 0, 0), size=0.5, opacity=10.0, colour=(1, 0, 0), quat=(1, 0, 0, 0)):
    return Gaussians(
        means=np.array([mean], np.float32),
        quats=np.array([quat], np.float32),
        scales=np.log(np.broadcast_to(np.float32(size), (1, 3))).astype(np.float32),
        opacities=np.array([opacity], np.float32),
        sh=((np.array([[colour]]) - 0.5) / 0.28209479).astype(np.float32),
    )


def test_a_gaussian_is_drawn_where_the_camera_projects_it_in_its_colour():
    for mean in ((0, 0, 0), (0.6, 0.4, 0.5), (-0.7, -0.5, -0.5)):
        picture = render(one(mean, size=0.05, colour=(0.25, 0.5, 1)), CAMERA)
        assert picture.shape == (48, 64, 3)
        assert picture.dtype == np.float32
        light = picture.astype(np.float64).sum(2)
        ys, xs = np.indices(light.shape) + 0.5
        centre = [(light * at).sum() / light.sum() for at in (xs, ys)]
        np.testing.assert_allclose(centre, CAMERA.project(np.array([mean], float))[0], atol=0.05)
        at = np.unravel_index(light.argmax(), light.shape)
        np.testing.assert_allclose(picture[at] / picture[at][2], [0.25, 0.5, 1], atol=1e-5)


def test_ellipses_are_those_of_many_projected_points():
    camera = Camera.looking(eye=(0.3, -0.2, -4), at=(0, 0, 0), width=2000, height=1500, field=60)
    rng = np.random.default_rng(0)
    quats, scales = rng.normal(size=(4, 4)), np.log(rng.uniform(0.002, 0.02, (4, 3)))
    means = np.array([[1.5, 1.2, 0], [-1.5, 1, 0.5], [1.4, -1.2, -0.5], [0, 0, 0]])
    means2d, conics, depths = project(*map(torch.from_numpy, (means, quats, scales)), camera)
    turns = rotations(torch.from_numpy(quats)).numpy()
    for n in range(4):
        points = means[n] + rng.normal(size=(200_000, 3)) * np.exp(scales[n]) @ turns[n].T
        a, b, c = conics[n].tolist()
        covariance = np.linalg.inv([[a, b], [b, c]]) - 0.3 * np.eye(2)
        measured = np.cov(camera.project(points).T)
        np.testing.assert_allclose(covariance, measured, atol=0.02 * np.trace(measured))
        np.testing.assert_allclose(means2d[n], camera.project(means[n : n + 1])[0])
        pose = camera.world_to_camera
        assert depths[n] == pytest.approx(means[n] @ pose[2, :3] + pose[2, 3])


def test_rotations_are_those_of_quaternions():
    turn = rotations(torch.tensor([[2.0, 0, 0, 2.0]]))[0]  # x to y, by 90 degrees around z
    torch.testing.assert_close(turn, torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]))


def test_harmonics_are_those_of_scipy():
    # Real harmonics from complex ones; INRIA's order is m from -l to l.
    rng = np.random.default_rng(0)
    means = rng.normal(size=(20, 3)) + CAMERA.eye
    x, y, z = ((means - CAMERA.eye) / np.linalg.norm(means - CAMERA.eye, axis=1, keepdims=True)).T
    theta, phi = np.arccos(z), np.arctan2(y, x)
    for k in range(16):
        degree = int(np.sqrt(k))
        m = k - degree * degree - degree
        value = sph_harm_y(degree, abs(m), theta, phi)
        part = value.real if m == 0 else np.sqrt(2) * (value.real if m > 0 else value.imag)
        sh = torch.zeros(20, 16, 3, dtype=torch.float64)
        sh[:, k] = 0.1
        ours = colours(torch.from_numpy(means), sh, CAMERA)[:, 0] - 0.5
        np.testing.assert_allclose(ours, 0.1 * part, atol=1e-12, err_msg=f"{degree} {m}")


def test_what_is_behind_the_camera_or_too_near_is_not_drawn():
    for mean in (CAMERA.eye, [0.4, -0.2, -5], [0.3, -0.2, -3.9]):
        assert render(one(mean), CAMERA).max() == 0


def test_no_gaussians_are_black():
    assert render(one().take(slice(0)), CAMERA).max() == 0


def test_extreme_gaussians_give_a_picture():
    for size in (1e-30, 1e30):
        for mean in ((0, 0, 0), (3e38, 0, 3e38), (1e4, 0, -3.7)):
            assert np.isfinite(render(one(mean, size=size, opacity=3e38), CAMERA)).all()


def test_gradients_reach_what_the_scene_is_made_of():
    camera = Camera.looking(eye=(0.3, -0.2, -3), at=(0, 0, 0), width=10, height=8, field=60)
    rng = np.random.default_rng(4)
    given = [
        torch.tensor(array, requires_grad=True)
        for array in (
            rng.uniform(-0.5, 0.5, (4, 3)),
            rng.normal(size=(4, 4)),
            np.log(rng.uniform(0.1, 0.4, (4, 3))),
            rng.normal(size=4),
            rng.uniform(-0.3, 0.3, (4, 16, 3)),
        )
    ]

    def draw(means, quats, scales, opacities, sh):
        means2d, conics, depths = project(means, quats, scales, camera)
        light = colours(means, sh, camera)
        return rasterize(means2d, conics, light, opacities.sigmoid(), depths, 10, 8)

    torch.autograd.gradcheck(draw, given, eps=1e-7, atol=2e-3)

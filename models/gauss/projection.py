"""Gaussians as a camera sees them: flat ellipses (EWA, Zwicker et al. 2001) and their colours.

Plain torch, with gradients. Knows no tile and no pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from codec.cameras import Camera
from codec.gaussians import FIRST_HARMONIC

__all__ = ["colours", "project", "rotations"]

WIDEN = 0.3  # square pixels that every ellipse is wider, so that none falls between pixels
MARGIN = 0.3  # of the view, beyond which the slope of the projection stays what it is there

# Factors of the real harmonics of degree 1 to 3, with the signs of INRIA's order.
H1 = 0.4886025119029199
H2 = (1.0925484305920792, -1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
H3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154)


def project(
    means: Tensor, quats: Tensor, scales: Tensor, camera: Camera
) -> tuple[Tensor, Tensor, Tensor]:
    """Ellipses of Gaussians that are in front of the camera.

    Args:
        means: `(N, 3)` in the world, in front of the camera.
        quats: `(N, 4)` w, x, y, z, of any length but 0.
        scales: `(N, 3)` logarithms of standard deviations.
        camera: whose pixels are the unit of what is returned.

    Returns:
        `(N, 2)` means in pixels, `(N, 3)` conics and `(N,)` depths, as `rasterize` wants them.
    """
    fx, fy, cx, cy = camera.intrinsics
    pose = torch.as_tensor(camera.world_to_camera).to(means)
    x, y, z = (means @ pose[:3, :3].T + pose[:3, 3]).unbind(1)
    u, v = x / z, y / z
    u_in = _clamped(u, fx, cx, camera.width)
    v_in = _clamped(v, fy, cy, camera.height)
    zero = torch.zeros_like(z)
    slopes = [[fx / z, zero, -fx * u_in / z], [zero, fy / z, -fy * v_in / z]]
    slope = torch.stack([torch.stack(row, 1) for row in slopes], 1)
    shape = slope @ pose[:3, :3] @ (rotations(quats) * scales.exp()[:, None])
    covariance = shape @ shape.transpose(1, 2)
    a, b, c = covariance[:, 0, 0] + WIDEN, covariance[:, 0, 1], covariance[:, 1, 1] + WIDEN
    conics = torch.stack([c, -b, a], 1) / (a * c - b * b)[:, None]
    return torch.stack([fx * u + cx, fy * v + cy], 1), conics, z


def _clamped(slope: Tensor, focal: float, centre: float, size: int) -> Tensor:
    margin = MARGIN * size / 2
    return slope.clamp(-(centre + margin) / focal, (size - centre + margin) / focal)


def rotations(quats: Tensor) -> Tensor:
    """`(N, 3, 3)` of `(N, 4)` quaternions w, x, y, z of any length but 0."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=1).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def colours(means: Tensor, sh: Tensor, camera: Camera) -> Tensor:
    """`(N, 3)` light of Gaussians as seen by the camera, at least 0.

    Args:
        means: `(N, 3)` in the world.
        sh: `(N, K, 3)` coefficients of the harmonics, K of 1, 4, 9 or 16.
        camera: of which only the place counts.
    """
    x, y, z = torch.nn.functional.normalize(
        means - torch.as_tensor(camera.eye).to(means), dim=1
    ).unbind(1)
    basis = [torch.full_like(x, FIRST_HARMONIC)]
    if sh.shape[1] > 1:
        basis += [-H1 * y, H1 * z, -H1 * x]
    if sh.shape[1] > 4:
        basis += [H2[0] * x * y, H2[1] * y * z, H2[2] * (2 * z * z - x * x - y * y)]
        basis += [H2[1] * x * z, H2[3] * (x * x - y * y)]
    if sh.shape[1] > 9:
        basis += [-H3[0] * y * (3 * x * x - y * y), H3[1] * x * y * z]
        basis += [-H3[2] * y * (4 * z * z - x * x - y * y)]
        basis += [H3[3] * z * (2 * z * z - 3 * x * x - 3 * y * y)]
        basis += [-H3[2] * x * (4 * z * z - x * x - y * y), H3[1] / 2 * z * (x * x - y * y)]
        basis += [-H3[0] * x * (x * x - 3 * y * y)]
    return (torch.einsum("kn,nkc->nc", torch.stack(basis), sh) + 0.5).clamp(min=0)

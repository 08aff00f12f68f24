"""A scene as a camera sees it: Gaussians in, a picture out. Knows no file and no codec."""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.cameras import Camera
from codec.gaussians import Gaussians
from codec.models.gauss.projection import colours, project
from codec.models.gauss.raster import rasterize

__all__ = ["NEAR", "Cloud", "cloud_of", "draw", "render"]

NEAR = 0.2  # units of the scene, as INRIA's renderer has it; what is nearer is not drawn


@final
class Cloud(NamedTuple):
    """`Gaussians` as tensors of one type, in which gradients may flow; the shapes are the same."""

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    sh: Tensor


def cloud_of(gaussians: Gaussians, dtype: torch.dtype) -> Cloud:
    """Gaussians as tensors."""
    return Cloud(*(torch.from_numpy(getattr(gaussians, name)).to(dtype) for name in Cloud._fields))


def draw(cloud: Cloud, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
    """A picture over black, with gradients.

    Returns:
        `(H, W, 3)` float32 light, at least 0; `(n, 2)` centres in pixels of those that are in front
        of the camera, which the picture was drawn from; `(n,)` which these are.

    Raises:
        LimitError: there are too many Gaussians too large to be held.
    """
    pose = torch.as_tensor(camera.world_to_camera).to(cloud.means)
    with torch.no_grad():
        seen = torch.nonzero(cloud.means @ pose[2, :3] + pose[2, 3] > NEAR)[:, 0]
    means, quats, scales, opacities, sh = (part[seen] for part in cloud)
    means2d, conics, ranks = project(means, quats, scales, camera)
    light = colours(means, sh, camera)
    rgb, _ = rasterize(
        means2d.float(),
        conics.float(),
        light.float(),
        opacities.sigmoid().float(),
        ranks.float(),
        camera.width,
        camera.height,
    )
    return rgb, means2d, seen


def render(
    gaussians: Gaussians, camera: Camera, *, device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """`(H, W, 3)` float32 in [0, 1] over black, drawn on a device.

    Raises:
        LimitError: there are too many Gaussians too large to be held.
    """
    # Small and long Gaussians are near to no ellipse at all; double precision keeps them whole.
    cloud = cloud_of(gaussians, torch.float64)
    rgb, _, _ = draw(Cloud(*(part.to(device) for part in cloud)), camera)
    return rgb.clamp(0, 1).cpu().numpy()

"""A scene as a camera sees it: Gaussians in, a picture out. Knows no file and no codec."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from codec.cameras import Camera
from codec.gaussians import Gaussians
from codec.models.gauss.projection import colours, project
from codec.models.gauss.raster import rasterize

__all__ = ["render"]

NEAR = 0.2  # units of the scene, as INRIA's renderer has it; what is nearer is not drawn


def render(
    gaussians: Gaussians, camera: Camera, *, device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """`(H, W, 3)` float32 in [0, 1] over black, drawn on a device.

    Raises:
        LimitError: there are too many Gaussians too large to be held.
    """
    pose = camera.world_to_camera
    depths = gaussians.means.astype(np.float64) @ pose[2, :3] + pose[2, 3]
    seen = gaussians.take(depths > NEAR)
    # Small and long Gaussians are near to no ellipse at all; double precision keeps them whole.
    means, quats, scales, opacities, sh = (
        torch.from_numpy(array).to(device, torch.float64)
        for array in (seen.means, seen.quats, seen.scales, seen.opacities, seen.sh)
    )
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
    return rgb.clamp(0, 1).cpu().numpy()

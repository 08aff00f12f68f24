"""A picture of a scene: which frame, which camera, and within which limits. Knows no format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codec.cameras import Camera
from codec.errors import LimitError, UsageError
from codec.gaussians import Gaussians
from codec.io.splats import read_splats, sequence_of
from codec.models.gauss.render import render

__all__ = ["frame_of", "view"]


def frame_of(source: str | Path, number: int) -> Gaussians:
    """One frame of a scene: a file of Gaussians, a folder or a pattern of numbered ones.

    This is where whatever else holds frames is told apart.

    Raises:
        InputError: there is no such file, or it is not what its extension says.
        UsageError: the scene has no such frame; the first is 0.
    """
    files = sequence_of(source)
    if not 0 <= number < len(files):
        raise UsageError(f"frame {number}: the scene has {len(files)}, the first is 0")
    return read_splats(files[number])


def view(gaussians: Gaussians, camera: Camera, *, max_pixels: int) -> NDArray[np.uint8]:
    """`(H, W, 3)` levels of red, green and blue.

    Raises:
        LimitError: the camera has more than `max_pixels`, or the Gaussians are too many too large.
    """
    if camera.width * camera.height > max_pixels:
        raise LimitError(
            f"{camera.width}x{camera.height} pixels are more than {max_pixels}; "
            "--max-pixels raises it"
        )
    return np.rint(255 * render(gaussians, camera)).astype(np.uint8)

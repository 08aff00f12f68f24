"""Small videos that tests share."""

import numpy as np
from numpy.typing import NDArray
from skimage import data

__all__ = ["moving"]


def moving(frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """A camera that moves over a photograph, `(frames, height, width, 3)`."""
    image = data.astronaut()
    return np.stack([image[n : n + height, 2 * n + 60 : 2 * n + 60 + width] for n in range(frames)])

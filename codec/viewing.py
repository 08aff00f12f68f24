"""A picture of a scene: which frame, which camera, and within which limits. Knows no format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from codec.api import DecodeOptions, open_scene
from codec.bitstream import SIGNATURE
from codec.cameras import Camera
from codec.errors import LimitError, UsageError
from codec.gaussians import Gaussians
from codec.io.files import read_bytes
from codec.io.splats import EXTENSIONS, read_splats, sequence_of
from codec.models.gauss.render import render
from codec.progress import Stopwatch
from codec.weights import SHIPPED, Zoo

__all__ = ["frame_of", "view"]


def frame_of(source: str | Path, number: int, zoo: Zoo = SHIPPED) -> Gaussians:
    """One frame of a scene: a stream, a file of Gaussians, a folder or a pattern of numbered ones.

    Args:
        source: its name; a file that begins as streams do is one, if its extension is none of
            Gaussians.
        number: of the frame; the first is 0.
        zoo: where the weights of a stream come from.

    Raises:
        InputError: there is no such file, or it is not what its extension says.
        BitstreamError, LimitError, ModelError: as `decode_scene`.
        UsageError: the scene has no such frame.
    """
    files = sequence_of(source)
    if len(files) == 1 and files[0].suffix.lower() not in EXTENSIONS:
        stream = read_bytes(files[0])
        if stream.startswith(SIGNATURE):
            options = DecodeOptions(frames=(number, number + 1), zoo=zoo)
            return next(open_scene(stream, options, watch=Stopwatch()).frames)
    if not 0 <= number < len(files):
        raise UsageError(f"frame {number}: the scene has {len(files)}, the first is 0")
    return read_splats(files[number])


def view(
    gaussians: Gaussians, camera: Camera, *, device: torch.device, max_pixels: int
) -> NDArray[np.uint8]:
    """`(H, W, 3)` levels of red, green and blue.

    Raises:
        LimitError: the camera has more than `max_pixels`, or the Gaussians are too many too large.
    """
    if camera.width * camera.height > max_pixels:
        raise LimitError(
            f"{camera.width}x{camera.height} pixels are more than {max_pixels}; "
            "--max-pixels raises it"
        )
    return np.rint(255 * render(gaussians, camera, device=device)).astype(np.uint8)

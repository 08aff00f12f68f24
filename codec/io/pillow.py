"""Pillow without its process-wide limit and its warnings. Knows no picture."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

__all__ = ["quiet_pillow"]

# Pillow's limit on pixels and Python's warning filters belong to the whole process.
_only_one = threading.Lock()


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Let Pillow open an image of any size and keep its warnings to itself; one thread at a time.

    The caller checks the size against its own limit before it loads a pixel.
    """
    with _only_one, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit

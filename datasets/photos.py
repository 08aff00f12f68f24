"""Photographs for training, from tar files or folders, as arrays in memory. Knows no network."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from codec.errors import InputError

__all__ = ["read_photos"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"})


def read_photos(sources: Sequence[Path], *, least: int = 256) -> list[NDArray[np.uint8]]:
    """All photographs of `sources` that are at least `least` pixels on both sides.

    Args:
        sources: tar files of images, or folders (searched for images and tar files of them,
            with everything below).
        least: the shortest side that is of use, in pixels.

    Returns:
        `(3, H, W)` arrays of RGB, in the order of the sources and, within one, of the names.

    Raises:
        InputError: a source does not exist, or there is no usable photograph in all of them.
    """
    photos = []
    for source in sources:
        for data in _files(source):
            with Image.open(data) as image:
                if min(image.size) >= least:
                    photos.append(np.asarray(image.convert("RGB")).transpose(2, 0, 1).copy())
    if not photos:
        raise InputError(f"no photographs of at least {least} pixels a side in {list(sources)}")
    return photos


def _files(source: Path) -> Iterator[Path | io.BytesIO]:
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in SUFFIXES:
                yield path
            elif path.suffix == ".tar":
                yield from _members(path)
    elif source.is_file():
        yield from _members(source)
    else:
        raise InputError(f"{source}: neither a tar file nor a folder")


def _members(path: Path) -> Iterator[io.BytesIO]:
    with tarfile.open(path) as tar:
        members = [m for m in tar.getmembers() if Path(m.name).suffix.lower() in SUFFIXES]
        for member in sorted(members, key=lambda m: m.name):
            content = tar.extractfile(member)
            if content is not None:
                yield io.BytesIO(content.read())

"""Image files into pictures: Pillow's formats, upright, with their metadata. Knows no model."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from codec.errors import CodecError, InputError, LimitError
from codec.io.deep import PNG_SIGNATURE, read_deep
from codec.io.metadata import Metadata, upright_exif, upright_xmp
from codec.io.picture import Picture
from codec.io.pillow import quiet_pillow

__all__ = ["read_image", "read_picture"]

logger = logging.getLogger(__name__)

EXIF_PREFIX = b"Exif\0\0"
XMP_KEY = "XML:com.adobe.xmp"
BITS_PER_SAMPLE = 258
# TIFF keeps what EXIF's first directory holds among its own tags; these are worth keeping.
TIFF_TAGS = (
    "ImageDescription", "Make", "Model", "Software", "DateTime", "Artist", "Copyright",
)  # fmt: skip


def read_picture(data: bytes, *, max_pixels: int) -> Picture:
    """The first image of a file, turned upright, with 8 or 16 bits as the file has them.

    An EXIF orientation is applied to the pixels and set to "upright" in the EXIF block, so that
    width, height and pixels are what viewers show. Of an animation the first frame is read, and a
    warning is logged.

    Raises:
        InputError: it is no image, is damaged, or its pixels cannot be coded.
        LimitError: it claims more than `max_pixels`.
    """
    if not data:
        raise InputError("the file is empty")
    with _translated(), Image.open(io.BytesIO(data)) as image:
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a photo and its previews
            logger.warning("an animation or several pages: only the first image is coded")
        return _read(image, data, max_pixels)


def read_image(image: Image.Image, *, max_pixels: int) -> Picture:
    """A Pillow image as `read_picture` reads its file, but with the 8 bits Pillow gives to RGB."""
    with _translated():
        return _read(image, b"", max_pixels)


@contextmanager
def _translated() -> Iterator[None]:
    """Pillow on its own terms inside; whatever goes wrong there as errors of this package."""
    try:
        with quiet_pillow():
            yield
    except CodecError:
        raise
    except UnidentifiedImageError as error:
        raise InputError("not an image of a known format, or its header is damaged") from error
    except MemoryError as error:
        raise LimitError("the image does not fit into memory") from error
    except Exception as error:
        # Pillow's readers raise whatever their parsing runs into: OSError, SyntaxError,
        # struct.error, KeyError, ...; each means that this file cannot be read.
        reason = str(error) or type(error).__name__
        raise InputError(f"cannot be read as an image: {reason}") from error


def _read(image: Image.Image, data: bytes, max_pixels: int) -> Picture:
    if image.width * image.height > max_pixels:
        raise LimitError(
            f"{image.width}x{image.height} pixels are more than {max_pixels}; "
            "--max-pixels raises the limit"
        )
    image.load()
    orientation = _orientation(image)
    metadata = _metadata(image)
    deep = _deep_samples(image, data)
    if deep is None:
        picture = Picture.from_image(_with_scaled_key(image, data), metadata)
    else:
        key = image.info.get("transparency")
        # FFmpeg turns a transparent colour into an alpha plane; the file itself has none.
        planes = Picture.from_array(deep if key is None else deep[:, :, : len(image.getbands())])
        picture = replace(planes, metadata=metadata).with_key(key)
    return picture.turned(orientation) if 2 <= orientation <= 8 else picture


def _orientation(image: Image.Image) -> int:
    """EXIF's 1 to 8; 1 if it has none or cannot be followed, which is no reason to lose pixels."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:  # as above: whatever Pillow's parsing runs into
        logger.debug("EXIF: %s", error)
        return 1


def _metadata(image: Image.Image) -> Metadata:
    info: dict[Any, Any] = image.info
    exif = _bytes(info.get("exif")).removeprefix(EXIF_PREFIX)
    if image.format == "TIFF":
        exif = _tiff_exif(image).removeprefix(EXIF_PREFIX)
    xmp = _bytes(info.get("xmp") or info.get(XMP_KEY))
    texts = {k: str(v) for k, v in getattr(image, "text", {}).items() if k != XMP_KEY}
    comment = _bytes(info.get("comment"))
    if comment:
        texts["Comment"] = comment.decode("utf-8", errors="replace").rstrip("\0")
    return Metadata(
        icc=_bytes(info.get("icc_profile")),
        exif=upright_exif(exif),
        xmp=upright_xmp(xmp),
        texts=texts,
    )


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value or b"")


def _tiff_exif(image: Image.Image) -> bytes:
    """An EXIF block of what a TIFF file says of its making; empty if it says nothing."""
    tags = image.getexif()
    exif = Image.Exif()
    for name in TIFF_TAGS:
        tag = ExifTags.Base[name]
        if tag in tags:
            exif[tag] = tags[tag]
    for ifd in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if tags.get_ifd(ifd):
            exif[ifd] = tags.get_ifd(ifd)
    return exif.tobytes() if len(exif) else b""


def _deep_samples(image: Image.Image, data: bytes) -> np.ndarray[Any, Any] | None:
    """16-bit samples of a colour image that Pillow has cut to 8 bits; None for all others."""
    is_png = data.startswith(PNG_SIGNATURE) and data[24] == 16 and data[25] != 0
    is_tiff = image.format == "TIFF" and data and image.mode in ("LA", "RGB", "RGBA")
    is_tiff = is_tiff and set(image.tag_v2.get(BITS_PER_SAMPLE, ())) == {16}  # type: ignore[attr-defined]
    if not (is_png or is_tiff):
        return None
    return read_deep(data, "png" if is_png else "tiff", image.width, image.height)


def _with_scaled_key(image: Image.Image, data: bytes) -> Image.Image:
    """Pillow scales grey of 2 or 4 bits to 8, but not the transparent level that goes with it."""
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int) and data.startswith(PNG_SIGNATURE):
        image.info["transparency"] = key * 255 // (2 ** data[24] - 1)
    return image

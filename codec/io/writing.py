"""Pictures into image files, by extension. Knows no model."""

from __future__ import annotations

import io
import itertools
import logging
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from codec.errors import UsageError
from codec.io.deep import write_png
from codec.io.files import STANDARD
from codec.io.metadata import Metadata
from codec.io.picture import Picture
from codec.io.pillow import quiet_pillow

__all__ = ["format_of", "write_picture"]

logger = logging.getLogger(__name__)

# Lossless where the format can be; elsewhere fine enough that what was saved is not lost again.
OPTIONS: dict[str, dict[str, Any]] = {
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "JPEG2000": {"irreversible": False},
    "WEBP": {"lossless": True, "exact": True},
}
ALPHA_FORMATS = ("AVIF", "ICO", "JPEG2000", "PNG", "TGA", "TIFF", "WEBP")
SEGMENT_MAX = 65_000  # bytes that a segment of a JPEG file holds beside its name
EXIF_PREFIX = b"Exif\0\0"
XMP_TAG = 700
XMP_KEY = "XML:com.adobe.xmp"


def format_of(target: str | Path) -> str:
    """Pillow's name of the format that a file name's extension asks for; PNG for `-`.

    Raises:
        UsageError: no format that can be written has this extension.
    """
    if str(target) == STANDARD:
        return "PNG"
    Image.init()
    extension = Path(target).suffix.lower()
    name = Image.registered_extensions().get(extension)
    if name is None or name not in Image.SAVE:
        raise UsageError(
            f"the extension {extension or '(none)'} names no image format that can be written; "
            "use .png, .jpg, .webp, .tif, .bmp or .ppm"
        )
    return name


def write_picture(picture: Picture, name: str) -> memoryview:
    """The file of `picture` in format `name`.

    A mode that the format cannot hold is converted to the nearest it can: a palette or CMYK to RGB,
    16 bits to 8. Alpha is not thrown away.

    Raises:
        UsageError: the format cannot hold the picture.
    """
    metadata = picture.metadata
    if picture.bit_depth == 16:
        if name == "PNG":
            return memoryview(write_png(_planes(picture), _png_chunks(metadata, picture.key)))
        if name == "PPM" and picture.alpha is None:
            return memoryview(_write_ppm(_planes(picture)))
        if not (name == "TIFF" and picture.mode == "L"):
            logger.warning("%s is written with 8 of the 16 bits; .png keeps them all", name)
            picture = _shallow(picture)
    image = picture.to_image()
    if image.has_transparency_data:
        if name not in ALPHA_FORMATS:
            raise UsageError(f"{name} cannot hold transparency; use .png, .webp or .tif")
        if name != "PNG" and image.mode not in ("LA", "RGBA"):
            image = image.convert("RGBA")  # others lose a transparent colour or palette entry
    plain = Metadata(icc=metadata.icc)
    for candidate, extras in itertools.product(_candidates(image), (metadata, plain)):
        file = io.BytesIO()
        try:
            with quiet_pillow():
                candidate.save(file, name, **OPTIONS.get(name, {}), **_extras(extras, name))
        except MemoryError:
            raise
        except Exception as error:
            # This format is not for this mode or size, or Pillow cannot follow the EXIF block;
            # its writers raise whatever they run into. The next attempt asks for less.
            logger.debug("%s of mode %s: %s", name, candidate.mode, error)
            continue
        return file.getbuffer()  # no copy: a file of 100 megapixels may have 300 MB
    raise UsageError(f"{name} cannot hold mode {image.mode} of {image.width}x{image.height} pixels")


def _planes(picture: Picture) -> np.ndarray[Any, Any]:
    samples = picture.to_array()
    return samples[:, :, None] if samples.ndim == 2 else samples


def _shallow(picture: Picture) -> Picture:
    """8 of 16 bits, rounded."""

    def cut(plane: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return ((plane.astype(np.uint32) + 128) // 257).astype(np.uint8)

    return Picture(
        picture.mode,
        cut(picture.colour),
        None if picture.alpha is None else cut(picture.alpha),
        key=None if picture.key is None else tuple((level + 128) // 257 for level in picture.key),
        metadata=picture.metadata,
    )


def _candidates(image: Image.Image) -> Iterator[Image.Image]:
    """The image itself, then what it may become without turning transparency opaque."""
    yield image
    if image.has_transparency_data:
        yield image.convert("RGBA")
        return
    if image.mode == "1":
        yield image.convert("L")
    yield image.convert("RGB")


def _extras(metadata: Metadata, name: str) -> dict[str, Any]:
    """What Pillow's writer of this format takes beside the pixels."""
    extras: dict[str, Any] = {}
    room = SEGMENT_MAX if name == "JPEG" else sys.maxsize
    if metadata.icc:
        extras["icc_profile"] = metadata.icc
    if 0 < len(metadata.exif) <= room:
        extras["exif"] = EXIF_PREFIX + metadata.exif
    if name == "TIFF":
        extras["exif"] = _tiff_tags(metadata)
    elif name == "PNG":
        extras["pnginfo"] = _png_texts(metadata)
    elif 0 < len(metadata.xmp) <= room:
        extras["xmp"] = metadata.xmp
    if name in ("JPEG", "GIF") and "Comment" in metadata.texts:
        extras["comment"] = metadata.texts["Comment"].encode()[:room]
    return extras


def _tiff_tags(metadata: Metadata) -> Image.Exif:
    """EXIF and XMP as the tags of a TIFF file."""
    tags = Image.Exif()
    tags.load(metadata.exif)
    if metadata.xmp:
        tags[XMP_TAG] = metadata.xmp
    return tags


def _png_texts(metadata: Metadata) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    if metadata.xmp:
        info.add_itxt(XMP_KEY, metadata.xmp.decode("utf-8", errors="replace"))
    for key, value in metadata.texts.items():
        info.add_text(key, value)
    return info


def _png_chunks(metadata: Metadata, key: tuple[int, ...] | None) -> list[tuple[bytes, bytes]]:
    """The same for a PNG file that is written here, as the chunks before the pixels."""
    chunks = []
    if metadata.icc:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)))
    if key is not None:
        chunks.append((b"tRNS", np.array(key, ">u2").tobytes()))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif))
    chunks += [(kind, body) for kind, body, *_ in _png_texts(metadata).chunks]
    return chunks


def _write_ppm(samples: np.ndarray[Any, Any]) -> bytes:
    """Portable grey or pixel map of 16 bits (P5, P6)."""
    height, width, channels = samples.shape
    kind = 5 if channels == 1 else 6
    return f"P{kind}\n{width} {height}\n65535\n".encode() + samples.astype(">u2").tobytes()

"""A picture as samples to be coded and what turns them back into its mode. Knows no file format.

A model codes colour: one channel of grey or three of RGB. All else that a mode says is kept beside
it: the alpha plane, the palette whose entries pixels snap to, the one colour that is transparent.

    >>> Picture.from_array(np.zeros((2, 3), np.uint8)).to_image().size
    (3, 2)
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from codec.errors import InputError, UsageError
from codec.io.metadata import Metadata

__all__ = ["KEYED", "MODES", "Picture", "Samples"]

Samples: TypeAlias = NDArray[Any]
"""Levels: uint8 or uint16."""

GREY = ("1", "L", "LA")
MODES = (*GREY, "RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")
"""The modes a picture may have, by Pillow's names; with 16 bits, those of `DEEP_MODES`."""
KEYED = ("1", "L", "RGB")
"""Those of which one colour may be transparent."""
DEEP_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
PILLOWS = (
    "background", "bpp", "comment", "compression", "disposal", "dpi", "duration", "exif", "gamma",
    "icc_profile", "loop", "offset", "palette", "transparency", "version", "xmp",
)  # fmt: skip
"""Names in an image's `info` that Pillow looks up when it converts or writes; no text of a file."""
NEAREST = {"La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "HSV": "RGB"}
SNAP_BLOCK = 1 << 16  # pixels compared to the palette at once: 64 MiB of distances


@final
@dataclass(frozen=True)
class Picture:
    """One image.

    Attributes:
        mode: one of `MODES`.
        colour: `(H, W, 1)` for grey, else `(H, W, 3)` RGB; uint8 or uint16. What a model codes.
        alpha: `(H, W)` of the same type, or None.
        palette: `(K, 3)` RGB or `(K, 4)` RGBA entries of uint8, 1 to 256 of them; only mode P, PA.
        key: the colour that is transparent, one value per channel; with it goes an `alpha` of 0
            and the peak value. The mode then has no alpha of its own.
        metadata: bytes that travel along.
    """

    mode: str
    colour: Samples
    alpha: Samples | None = None
    palette: NDArray[np.uint8] | None = None
    key: tuple[int, ...] | None = None
    metadata: Metadata = field(default_factory=Metadata)

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.colour.shape[0])

    @property
    def width(self) -> int:
        """Pixels in a row."""
        return int(self.colour.shape[1])

    @property
    def bit_depth(self) -> int:
        """Bits of a sample, 8 or 16."""
        return 8 * self.colour.itemsize

    @classmethod
    def from_array(cls, array: Any) -> Picture:
        """From `(H, W)` or `(H, W, C)`, C of 1 to 4 for L, LA, RGB, RGBA; uint8 or uint16.

        Raises:
            UsageError: another type or shape, or no pixel.
        """
        array = np.asarray(array)
        planes = array[:, :, None] if array.ndim == 2 else array
        if array.dtype not in (np.uint8, np.uint16) or planes.ndim != 3 or planes.size == 0:
            raise UsageError(
                "image array: want (H, W) or (H, W, C) of uint8 or uint16, "
                f"got {array.shape} of {array.dtype}"
            )
        mode = DEEP_MODES.get(planes.shape[2])
        if mode is None:
            raise UsageError(f"image array: want 1 to 4 channels, got {planes.shape[2]}")
        if mode in ("LA", "RGBA"):
            return cls(mode, planes[:, :, :-1], alpha=planes[:, :, -1])
        return cls(mode, planes)

    @classmethod
    def from_image(cls, image: Image.Image, metadata: Metadata | None = None) -> Picture:
        """From a Pillow image of any mode that has integer samples; `metadata` goes along.

        Raises:
            InputError: its mode cannot be coded.
        """
        metadata = metadata or Metadata()
        if image.width == 0 or image.height == 0:
            raise InputError("the image has no pixels")
        if image.mode == "I" or image.mode.startswith("I;16"):
            return _from_wide(image, metadata)
        mode = NEAREST.get(image.mode, image.mode)
        if mode not in MODES:
            raise InputError(f"pixels of mode {image.mode} cannot be coded; convert to RGB first")
        if mode in ("P", "PA"):
            return _from_palette(image, metadata)
        if mode == "CMYK":
            return cls(mode, _from_cmyk(image, metadata.icc), metadata=metadata)
        if image.mode != mode:
            image = image.convert(mode)
        if mode in ("LA", "RGBA"):
            return replace(cls.from_array(np.asarray(image)), metadata=metadata)
        planes = cls.from_array(np.asarray(image.convert("L" if mode in GREY else "RGB")))
        picture = replace(planes, mode=mode, metadata=metadata)
        return picture.with_key(image.info.get("transparency"))

    def with_key(self, key: int | tuple[int, ...] | bytes | None) -> Picture:
        """The picture with one colour transparent, as PNG states it; one that cannot be is none."""
        if not isinstance(key, int | tuple) or self.mode not in KEYED:
            return self
        key = (key,) if isinstance(key, int) else tuple(key)
        peak = 2**self.bit_depth - 1
        if len(key) != self.colour.shape[2] or not all(0 <= level <= peak for level in key):
            return self
        if self.mode == "1":
            key = (peak if key[0] else 0,)
        clear = (self.colour == np.array(key, self.colour.dtype)).all(axis=2)
        alpha = np.where(clear, 0, peak).astype(self.colour.dtype)
        return replace(self, alpha=alpha, key=key)

    def turned(self, orientation: int) -> Picture:
        """The picture as EXIF's `orientation`, 1 to 8, says it is to be seen."""
        return replace(
            self,
            colour=_turn(self.colour, orientation),
            alpha=None if self.alpha is None else _turn(self.alpha, orientation),
        )

    def cropped(self, x: int, y: int, width: int, height: int) -> Picture:
        """The rectangle whose top left pixel is column `x` of row `y`."""
        window = np.s_[y : y + height, x : x + width]
        alpha = None if self.alpha is None else self.alpha[window]
        return replace(self, colour=self.colour[window], alpha=alpha)

    def to_array(self) -> Samples:
        """Samples as `from_array` takes them: `(H, W)` for L, else `(H, W, C)`; grey, RGB, alpha.

        A palette, a profile's colours and the like are undone: what is left is grey or RGB.
        """
        colour = self._final_colour()
        if self.alpha is not None and self.key is None:
            return np.dstack([colour, self.alpha])
        return colour[:, :, 0] if colour.shape[2] == 1 else colour

    def alike(self, other: Picture) -> tuple[Samples, Samples]:
        """The colour of both, `(H, W, C)`, with the channels and the bits of the one with more."""
        a, b = self._final_colour(), other._final_colour()
        channels = max(a.shape[2], b.shape[2])
        a, b = (np.broadcast_to(part, (*part.shape[:2], channels)) for part in (a, b))
        if a.dtype == b.dtype:
            return a, b
        deep = [part if part.itemsize == 2 else part.astype(np.uint16) * 257 for part in (a, b)]
        return deep[0], deep[1]

    def to_image(self) -> Image.Image:
        """The Pillow image of this picture's mode; of 16 bits, only grey has one (`I;16`).

        Metadata are in its `info`, under the names that Pillow's readers use.
        """
        image = self._to_image()
        if self.key is not None:
            image.info["transparency"] = self.key if len(self.key) > 1 else self._grey_key()
        if self.metadata.icc:
            image.info["icc_profile"] = self.metadata.icc
        if self.metadata.exif:
            image.info["exif"] = b"Exif\0\0" + self.metadata.exif
        if self.metadata.xmp:
            image.info["xmp"] = self.metadata.xmp
        image.info.update({k: v for k, v in self.metadata.texts.items() if k not in PILLOWS})
        return image

    def _to_image(self) -> Image.Image:
        if self.bit_depth == 16 and self.mode != "L":
            raise UsageError(f"Pillow has no image of 16 bits and mode {self.mode}")
        if self.palette is not None:
            return self._to_palette_image(self.palette)
        if self.mode == "CMYK":
            return _to_cmyk(self.colour, self.metadata.icc)
        image = Image.fromarray(np.ascontiguousarray(self.to_array()))
        if self.mode == "1":
            return image.point(lambda level: 255 if level >= 128 else 0, "1")
        return (
            image if self.bit_depth == 16 or image.mode == self.mode else image.convert(self.mode)
        )

    def _to_palette_image(self, palette: NDArray[np.uint8]) -> Image.Image:
        indexes = _nearest_entries(self.colour, palette, self.alpha)
        image = Image.fromarray(indexes)
        image.putpalette(palette[:, :3].tobytes())
        if self.mode == "PA" and self.alpha is not None:
            joined = Image.new("PA", image.size)
            joined.putpalette(palette[:, :3].tobytes())
            joined.paste(image)
            joined.putalpha(Image.fromarray(np.ascontiguousarray(self.alpha)))
            return joined
        if palette.shape[1] == 4:
            image.info["transparency"] = palette[:, 3].tobytes()
        return image

    def _final_colour(self) -> Samples:
        if self.palette is not None:
            return self.palette[:, :3][_nearest_entries(self.colour, self.palette, self.alpha)]
        if self.key is None or self.alpha is None:
            return self.colour
        clear = self.alpha == 0
        colour = self.colour.copy()
        # A visible pixel that came out in the key's colour moves by one level, or it would vanish.
        clash = ~clear & (colour == np.array(self.key, colour.dtype)).all(axis=2)
        colour[clash, 0] ^= 1
        colour[clear] = self.key
        return colour

    def _grey_key(self) -> int:
        value = (self.key or (0,))[0]
        return value if self.mode != "1" else int(value >= 128)


def _turn(plane: Samples, orientation: int) -> Samples:
    if orientation in (5, 6, 7, 8):
        plane = np.swapaxes(plane, 0, 1)
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    return np.ascontiguousarray(plane)


def _from_wide(image: Image.Image, metadata: Metadata) -> Picture:
    """16-bit grey, which Pillow also keeps in 32-bit integers."""
    samples = np.asarray(image)
    if samples.min() < 0 or samples.max() > 0xFFFF:
        raise InputError("integer pixels outside 0..65535 cannot be coded")
    picture = Picture("L", samples.astype(np.uint16)[:, :, None], metadata=metadata)
    return picture.with_key(image.info.get("transparency"))


def _from_palette(image: Image.Image, metadata: Metadata) -> Picture:
    planes = np.asarray(image)
    indexes = planes if planes.ndim == 2 else planes[:, :, 0]
    entries = _entries(image, int(indexes.max()) + 1)
    if image.mode == "PA":
        return Picture(
            image.mode, entries[indexes, :3], planes[:, :, 1], entries[:, :3], None, metadata
        )
    alpha = entries[indexes, 3] if entries.shape[1] == 4 else None
    return Picture(image.mode, entries[indexes, :3], alpha, entries, metadata=metadata)


def _entries(image: Image.Image, count: int) -> NDArray[np.uint8]:
    """The first `count` entries, RGB or RGBA; those that a damaged file lacks are black."""
    has_alpha = image.palette is not None and image.palette.mode == "RGBA"
    mode = "RGBA" if has_alpha else "RGB"
    flat = np.array(image.getpalette(mode) or [], np.uint8)[: count * len(mode)]
    entries = np.zeros((count, len(mode)), np.uint8)
    entries.reshape(-1)[: len(flat)] = flat
    clear = image.info.get("transparency")
    if clear is None or has_alpha:
        return entries
    opacity = np.full((count, 1), 255, np.uint8)
    if isinstance(clear, bytes):
        opacity[: len(clear), 0] = np.frombuffer(clear[:count], np.uint8)
    elif isinstance(clear, int) and 0 <= clear < count:
        opacity[clear] = 0
    return np.hstack([entries, opacity])


def _nearest_entries(
    colour: Samples, palette: NDArray[np.uint8], alpha: Samples | None
) -> NDArray[np.uint8]:
    """For each pixel the entry nearest in RGB, among those of its own alpha if entries have one."""
    height, width = colour.shape[:2]
    pixels = colour.reshape(-1, 3)
    entries = palette[:, :3].astype(np.float32)
    indexes = np.empty(len(pixels), np.uint8)
    opacity = alpha.reshape(-1) if alpha is not None and palette.shape[1] == 4 else None
    for start in range(0, len(pixels), SNAP_BLOCK):
        block = slice(start, start + SNAP_BLOCK)
        # |p|^2 - 2 p.e + |e|^2 without the first term, which is the same for every entry e;
        # all are integers below 2^24, so float32 is exact.
        distance = (entries**2).sum(axis=1) - 2 * pixels[block].astype(np.float32) @ entries.T
        if opacity is not None:
            distance[opacity[block, None] != palette[:, 3]] += 2.0**20
        indexes[block] = distance.argmin(axis=1)
    return indexes.reshape(height, width)


def _from_cmyk(image: Image.Image, icc: bytes) -> NDArray[np.uint8]:
    """RGB of a CMYK image: by its profile if that is usable, else (255 - C)(255 - K) / 255."""
    transforms = _ink_transforms(icc)
    if transforms is None:
        return np.asarray(image.convert("RGB"))
    return np.asarray(ImageCms.applyTransform(image, transforms[0]))


def _to_cmyk(colour: Samples, icc: bytes) -> Image.Image:
    """The way back; without a profile, the darkness all inks share is black."""
    image = Image.fromarray(np.ascontiguousarray(colour))
    transforms = _ink_transforms(icc)
    inked = None if transforms is None else ImageCms.applyTransform(image, transforms[1])
    if inked is not None:
        return inked
    light = colour.max(axis=2, keepdims=True)
    rest = np.rint(colour * (255 / np.maximum(light, 1))).astype(np.uint8)
    inks = np.where(light > 0, 255 - rest, 0).astype(np.uint8)
    return Image.fromarray(np.concatenate([inks, 255 - light], axis=2), "CMYK")


def _ink_transforms(icc: bytes) -> tuple[Any, Any] | None:
    """From CMYK to sRGB and back; None if the profile does not give both."""
    try:
        inks = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        screen = ImageCms.createProfile("sRGB")
        return (
            ImageCms.buildTransform(inks, screen, "CMYK", "RGB"),
            ImageCms.buildTransform(screen, inks, "RGB", "CMYK"),
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None

"""The codecs that people would pick instead, each as a pair of functions between image and bytes.

Knows Pillow, imagecodecs and pillow-heif; knows no model of ours and measures nothing. Which of the
libraries are there is found out when they are asked for: an anchor that is missing has a reason.

    >>> [anchor.name for anchor in find(["jpeg"])[0]]
    ['jpeg420', 'jpeg444']
"""

import importlib
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image, features
from PIL import __version__ as pillow_version

from codec.errors import UsageError

__all__ = ["ANCHORS", "GROUPS", "Anchor", "find"]


@dataclass(frozen=True)
class Anchor:
    """One codec with one set of settings; its quality is the only thing that varies.

    Attributes:
        name: as in the tables, for example "jpeg420".
        label: as in the plots.
        suffix: of its files.
        settings: what is fixed, for the reader of a report.
        qualities: what it is run at, from the smallest file to the largest, in its own unit.
        integral: whether its quality has to be a whole number.
        threads: how many it is given.
        version: the library and its version; raises ImportError with a reason if it is missing.
        encode: an RGB image and a quality to the bytes of a file.
        decode: the bytes of a file to an RGB image.
    """

    name: str
    label: str
    suffix: str
    settings: str
    qualities: tuple[float, ...]
    integral: bool
    threads: int
    version: Callable[[], str]
    encode: Callable[[Image.Image, float], bytes]
    decode: Callable[[bytes], Image.Image]


def find(names: Iterable[str]) -> tuple[tuple[Anchor, ...], Mapping[str, str]]:
    """The anchors of these names or groups, in the order asked for, each once.

    Returns:
        Those that can run here, and for each of the others the reason why it cannot.

    Raises:
        UsageError: there is no anchor or group of that name.
    """
    wanted: dict[str, Anchor] = {}
    for name in names:
        members = GROUPS.get(name, (name,))
        for member in members:
            if member not in ANCHORS:
                known = ", ".join([*GROUPS, *ANCHORS])
                raise UsageError(f"anchor {member!r} is not known; there are {known}")
            wanted[member] = ANCHORS[member]
    missing = {}
    for name, anchor in wanted.items():
        try:
            anchor.version()
        except ImportError as error:
            missing[name] = str(error)
    return tuple(a for a in wanted.values() if a.name not in missing), missing


def _pillow(feature: str, title: str) -> Callable[[], str]:
    def version() -> str:
        if not features.check(feature):
            raise ImportError(f"this Pillow {pillow_version} was built without {title}")
        return f"Pillow {pillow_version}, {title} {features.version(feature)}"

    return version


def _save(image: Image.Image, format_name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def _jpeg(name: str, subsampling: str) -> Anchor:
    return Anchor(
        name=name,
        label=f"JPEG {subsampling}",
        suffix=".jpg",
        settings=f"optimize, {subsampling}",
        qualities=(5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95),
        integral=True,
        threads=1,
        version=_pillow("libjpeg_turbo", "libjpeg-turbo"),
        encode=lambda image, quality: _save(
            image, "JPEG", quality=int(quality), optimize=True, subsampling=subsampling
        ),
        decode=_open,
    )


def _avif(name: str, speed: int) -> Anchor:
    # Two threads: with one, libaom codes the rows in another way and its files grow by 1 %; with
    # more than two they stay the same.
    return Anchor(
        name=name,
        label=f"AVIF (speed {speed})",
        suffix=".avif",
        settings=f"4:4:4, speed {speed}",
        qualities=(5, 15, 25, 35, 45, 55, 65, 75, 85, 93),
        integral=True,
        threads=2,
        version=_pillow("avif", "libavif"),
        encode=lambda image, quality: _save(
            image, "AVIF", quality=int(quality), speed=speed, subsampling="4:4:4", max_threads=2
        ),
        decode=_open,
    )


def _jp2_encode(image: Image.Image, quality: float) -> bytes:
    # Pillow leaves the colour transform (mct) out unless asked, which costs 4 dB.
    layers = [24 / quality]
    return _save(
        image, "JPEG2000", irreversible=True, mct=1, quality_mode="rates", quality_layers=layers
    )


def _imagecodecs() -> Any:
    module = importlib.import_module("imagecodecs")
    if not module.JPEGXL.available:
        raise ImportError(f"this imagecodecs {module.__version__} was built without JPEG XL")
    return module


def _imagecodecs_version() -> str:
    module = _imagecodecs()
    return f"imagecodecs {module.__version__}, {module.jpegxl_version()}"


def _jxl_encode(image: Image.Image, quality: float) -> bytes:
    pixels = np.asarray(image)
    data: bytes = _imagecodecs().jpegxl_encode(pixels, distance=quality, effort=7, numthreads=1)
    return data


def _jxl_decode(data: bytes) -> Image.Image:
    return Image.fromarray(_imagecodecs().jpegxl_decode(data, numthreads=1))


def _pillow_heif() -> Any:
    module = importlib.import_module("pillow_heif")
    if not module.libheif_info()["HEIF"]:
        raise ImportError(f"this pillow-heif {module.__version__} has no HEVC encoder")
    return module


def _heif_version() -> str:
    module = _pillow_heif()
    info = module.libheif_info()
    encoder = info["HEIF"].split(" ")[0]
    return f"pillow-heif {module.__version__}, libheif {info['libheif']}, {encoder}"


def _heic_encode(image: Image.Image, quality: float) -> bytes:
    buffer = io.BytesIO()
    _pillow_heif().from_pillow(image).save(buffer, quality=int(quality), chroma=444)
    return buffer.getvalue()


def _heic_decode(data: bytes) -> Image.Image:
    opened: Image.Image = _pillow_heif().open_heif(io.BytesIO(data)).to_pillow()
    return opened.convert("RGB")


_ALL = (
    _jpeg("jpeg420", "4:2:0"),
    _jpeg("jpeg444", "4:4:4"),
    Anchor(
        name="jp2",
        label="JPEG 2000",
        suffix=".jp2",
        settings="irreversible, colour transform, bpp asked for",
        qualities=(0.1, 0.15, 0.24, 0.375, 0.5, 0.75, 1, 1.5, 2),
        integral=False,
        threads=1,
        version=_pillow("jpg_2000", "OpenJPEG"),
        encode=_jp2_encode,
        decode=_open,
    ),
    Anchor(
        name="webp_m6",
        label="WebP",
        suffix=".webp",
        settings="method 6",
        qualities=(1, 5, 15, 30, 50, 70, 80, 90, 95),
        integral=True,
        threads=1,
        version=_pillow("webp", "libwebp"),
        encode=lambda image, quality: _save(image, "WEBP", quality=int(quality), method=6),
        decode=_open,
    ),
    _avif("avif_s6", 6),
    _avif("avif_s2", 2),
    Anchor(
        name="jxl_e7",
        label="JPEG XL",
        suffix=".jxl",
        settings="effort 7, distance",
        qualities=(15, 10, 7, 5, 3.5, 2.5, 1.8, 1.2, 0.8, 0.5),
        integral=False,
        threads=1,
        version=_imagecodecs_version,
        encode=_jxl_encode,
        decode=_jxl_decode,
    ),
    Anchor(
        name="heic_x265",
        label="HEIC (x265)",
        suffix=".heic",
        settings="4:4:4",
        qualities=(10, 20, 30, 40, 50, 60, 70, 80, 90),
        integral=True,
        threads=1,
        version=_heif_version,
        encode=_heic_encode,
        decode=_heic_decode,
    ),
)

ANCHORS: Mapping[str, Anchor] = MappingProxyType({anchor.name: anchor for anchor in _ALL})

# What `--anchors` may also name: every setting of a format.
GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "jpeg": ("jpeg420", "jpeg444"),
        "jpeg2000": ("jp2",),
        "webp": ("webp_m6",),
        "avif": ("avif_s6", "avif_s2"),
        "jxl": ("jxl_e7",),
        "heic": ("heic_x265",),
    }
)

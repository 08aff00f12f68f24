r"""What travels beside the pixels: ICC profile, EXIF, XMP and text. Knows no pixel and no file.

>>> join_texts({"Author": "A. Person"})
b'Author\x00A. Person\x00'
>>> split_texts(b'Author\x00A. Person\x00')
{'Author': 'A. Person'}
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from codec.errors import BitstreamError

__all__ = ["Metadata", "join_texts", "split_texts", "upright_exif", "upright_xmp"]

ORIENTATION = 0x0112
SHORT = 3
KEY_MAX = 79  # PNG's limit, which every file that is written must keep


@dataclass(frozen=True)
class Metadata:
    """Bytes as they stand in the file, empty where it has none.

    `exif` starts with its TIFF header (`II*` or `MM*`), without JPEG's `Exif` prefix.
    """

    icc: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""
    texts: Mapping[str, str] = field(default_factory=dict)


def join_texts(texts: Mapping[str, str]) -> bytes:
    """Keys and values in UTF-8, each ended by a zero byte; what PNG could not hold is left out."""
    parts = []
    for key, value in texts.items():
        if _is_key(key):
            parts += [key.encode(), value.replace("\0", " ").encode(errors="replace")]
    return b"".join(part + b"\0" for part in parts)


def split_texts(payload: bytes) -> dict[str, str]:
    """The inverse of `join_texts`.

    Raises:
        BitstreamError: a part is missing, is not UTF-8 or is no key.
    """
    parts = payload.split(b"\0")
    if len(parts) % 2 == 0 or parts.pop():
        raise BitstreamError("text: want pairs of key and value, each ended by a zero byte")
    try:
        words = [part.decode() for part in parts]
    except UnicodeDecodeError as error:
        raise BitstreamError(f"text: want UTF-8: {error.reason}") from error
    if not all(_is_key(key) for key in words[::2]):
        raise BitstreamError(f"text: want keys of 1 to {KEY_MAX} printable Latin-1 letters")
    return dict(zip(words[::2], words[1::2], strict=True))


def upright_exif(exif: bytes) -> bytes:
    """`exif` whose orientation, if it states one, says "upright"; nothing else moves.

    The value is overwritten where it stands, so that maker notes, which count bytes from the start
    of the block, stay readable. A block that cannot be followed is returned as it is.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return exif
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return exif
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for at in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind = struct.unpack_from(f"{order}HH", exif, at)
        if tag == ORIENTATION:
            value = struct.pack(f"{order}H" if kind == SHORT else f"{order}I", 1)
            return exif[: at + 8] + value.ljust(4, b"\0") + exif[at + 12 :]
    return exif


def upright_xmp(xmp: bytes) -> bytes:
    """`xmp` whose `tiff:Orientation`, attribute or element, says "upright"."""
    return re.sub(rb"""(tiff:Orientation(?:\s*=\s*["']|>))[2-8](?=["'<])""", rb"\g<1>1", xmp)


def _is_key(key: str) -> bool:
    return 1 <= len(key) <= KEY_MAX and all(" " <= c <= "~" or "\xa1" <= c <= "\xff" for c in key)

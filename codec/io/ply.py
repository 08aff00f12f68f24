"""PLY files of Gaussians as INRIA's trainer writes them: bytes to a value and back. Knows no codec.

A property may stand anywhere and be of any number type; the file may be binary of either byte
order, or text. What is written is binary, little endian, float32, and loses nothing.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.errors import InputError, LimitError
from codec.gaussians import COEFFICIENTS, Gaussians

__all__ = ["checked", "pack_ply", "parse_ply"]

HEADER_MAX = 1 << 16  # bytes; INRIA's is 1500
NUMBERS = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
}
ORDERS = {b"binary_little_endian": "<", b"binary_big_endian": ">", b"ascii": ""}
BASE = (
    *("x", "y", "z"),
    *("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacity",
    *("scale_0", "scale_1", "scale_2"),
    *("rot_0", "rot_1", "rot_2", "rot_3"),
)


def parse_ply(data: bytes, *, max_gaussians: int) -> Gaussians:
    """The Gaussians of a file's bytes.

    Raises:
        InputError: it is no PLY file of Gaussians of degree 0 to 3, or a damaged one.
        LimitError: there are more than `max_gaussians`.
    """
    order, count, fields, more, start = _header(data)
    if count > max_gaussians:
        raise LimitError(f"{count} Gaussians are more than {max_gaussians}")
    names = [name for name, _ in fields]
    missing = [name for name in BASE if name not in names]
    if missing:
        raise InputError(f"PLY: no property {missing[0]}; is it a file of Gaussians?")
    rest = sum(re.fullmatch(r"f_rest_\d+", name) is not None for name in names)
    wanted = [f"f_rest_{index}" for index in range(rest)]
    if 1 + rest // 3 not in COEFFICIENTS or rest % 3 or not set(wanted) <= set(names):
        raise InputError(f"PLY: want f_rest_0 to 8, 23 or 44 or none, got {rest} such properties")
    columns = (
        _binary(data[start:], order, count, fields, more)
        if order
        else _text(data[start:], count, names, more)
    )

    def floats(*chosen: str) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):  # infinity is refused below
            return np.stack([columns[name].astype(np.float32) for name in chosen], 1)

    sh = floats("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    if rest:  # all of red, then green, then blue
        higher = floats(*wanted).reshape(count, 3, rest // 3).transpose(0, 2, 1)
        sh = np.concatenate([sh, higher], 1)
    return checked(
        means=floats("x", "y", "z"),
        quats=floats("rot_0", "rot_1", "rot_2", "rot_3"),
        scales=floats("scale_0", "scale_1", "scale_2"),
        opacities=floats("opacity")[:, 0],
        sh=np.ascontiguousarray(sh),
    )


def checked(**arrays: NDArray[np.float32]) -> Gaussians:
    """Gaussians that a file states.

    Raises:
        InputError: a value is not finite, or a rotation is 0.
    """
    try:
        return Gaussians(**arrays)
    except ValueError as error:
        raise InputError(str(error)) from error


def pack_ply(gaussians: Gaussians) -> bytes:
    """A file's bytes: float32, little endian, with the normals of 0 that viewers expect."""
    count, coefficients = gaussians.sh.shape[:2]
    rest = 3 * (coefficients - 1)
    names = [
        *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
        *(f"f_rest_{index}" for index in range(rest)),
        *BASE[6:],
    ]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {count}",
        *(f"property float {name}" for name in names),
        "end_header\n",
    ]
    table = np.concatenate(
        [
            gaussians.means,
            np.zeros((count, 3), np.float32),
            gaussians.sh[:, 0],
            gaussians.sh[:, 1:].transpose(0, 2, 1).reshape(count, rest),
            gaussians.opacities[:, None],
            gaussians.scales,
            gaussians.quats,
        ],
        1,
    )
    return "\n".join(header).encode() + table.astype("<f4").tobytes()


def _header(data: bytes) -> tuple[str, int, list[tuple[str, str]], bool, int]:
    """Byte order, count, names and types, whether other elements follow, where the data begin."""
    end = re.compile(rb"\nend_header\r?\n").search(data, 0, HEADER_MAX)
    if not data.startswith((b"ply\n", b"ply\r\n")) or end is None:
        raise InputError(f"PLY: want 'ply' to 'end_header' in the first {HEADER_MAX} bytes")
    lines = [line.split() for line in data[: end.start()].splitlines()[1:]]
    lines = [words for words in lines if words and words[0] not in (b"comment", b"obj_info")]
    if not lines or lines[0][0] != b"format" or lines[0][1:2] == [] or lines[0][1] not in ORDERS:
        raise InputError("PLY: want a format of binary_little_endian, binary_big_endian or ascii")
    if len(lines) < 2 or lines[1][:2] != [b"element", b"vertex"] or len(lines[1]) != 3:
        raise InputError("PLY: want 'element vertex N' as the first element")
    if not re.fullmatch(rb"\d{1,10}", lines[1][2]):
        raise InputError("PLY: the number of vertices is none")
    fields: list[tuple[str, str]] = []
    more = False
    for words in lines[2:]:
        if words[0] == b"element":
            more = True
        elif words[0] != b"property":
            raise InputError(f"PLY: {words[0][:20]!r} in the header")
        elif not more:
            if len(words) != 3 or words[1].decode("latin-1") not in NUMBERS:
                raise InputError("PLY: want a number type and a name for each property of a vertex")
            fields.append((words[2].decode("latin-1"), NUMBERS[words[1].decode()]))
    if len({name for name, _ in fields}) != len(fields):
        raise InputError("PLY: a property is there twice")
    return ORDERS[lines[0][1]], int(lines[1][2]), fields, more, end.end()


def _binary(
    body: bytes, order: str, count: int, fields: list[tuple[str, str]], more: bool
) -> NDArray[Any]:
    row = np.dtype([(name, order + kind) for name, kind in fields])
    size = count * row.itemsize
    if len(body) < size or (len(body) > size and not more):
        raise InputError(f"PLY: want {size} bytes for {count} vertices, got {len(body)}")
    return np.frombuffer(body, row, count)


def _text(body: bytes, count: int, names: list[str], more: bool) -> dict[str, NDArray[Any]]:
    words = body.split()
    size = count * len(names)
    if len(words) < size or (len(words) > size and not more):
        raise InputError(f"PLY: want {size} numbers for {count} vertices, got {len(words)}")
    try:
        table = np.array([float(word) for word in words[:size]]).reshape(count, len(names))
    except ValueError as error:
        raise InputError(f"PLY: {error}") from error
    return dict(zip(names, table.T, strict=True))

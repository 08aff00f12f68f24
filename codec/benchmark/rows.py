"""The table of a benchmark: one row per image, codec and quality, as a CSV that survives a kill.

Knows no codec and no image: it reads, checks and writes rows.
"""

import csv
import dataclasses
import io
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from codec.errors import InputError
from codec.io.files import write_whole

__all__ = ["COLUMNS", "Row", "append_row", "read_rows", "write_rows"]


@dataclass(frozen=True)
class Row:
    """What one codec made of one image at one quality. The fields are the columns, in order.

    Attributes:
        file: name of the image in its folder.
        image_sha256: the first 16 digits of the hash of that file.
        width, height: in pixels.
        codec: name of the anchor or model.
        made_by: library versions and settings, or the hash of the weights: rows of another origin
            are never mixed with these.
        quality: in the codec's own unit.
        bytes: size of the file that was written.
        bpp: 8 bytes / (width height).
        psnr_rgb, psnr_y: dB, infinite where nothing was lost.
        ms_ssim, ms_ssim_db: None for images below 161 pixels.
        device, threads: where it ran and on how many threads.
        load_s: seconds that the process took, once, to get the codec ready (imports, weights).
        encode_s, decode_s: seconds between image and bytes in memory, wall time.
        encode_transform_s, encode_entropy_s, decode_transform_s, decode_entropy_s: parts of these;
            None where a codec does not tell.
    """

    file: str
    image_sha256: str
    width: int
    height: int
    codec: str
    made_by: str
    quality: float
    bytes: int
    bpp: float
    psnr_rgb: float
    psnr_y: float
    ms_ssim: float | None
    ms_ssim_db: float | None
    device: str
    threads: int
    load_s: float
    encode_s: float
    encode_transform_s: float | None
    encode_entropy_s: float | None
    decode_s: float
    decode_transform_s: float | None
    decode_entropy_s: float | None


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
_TYPES = typing.get_type_hints(Row)


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV; a last line that a kill cut short is left out.

    Raises:
        InputError: the file has other columns, or a line that is no row.
    """
    # Cut before it is decoded: a kill may have left half a character.
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    lines = list(csv.reader(io.StringIO(whole.decode(errors="replace"))))
    if not lines or tuple(lines[0]) != COLUMNS:
        raise InputError(f"{path}: want the columns {','.join(COLUMNS)}")
    return [_parse(path, number, line) for number, line in enumerate(lines[1:], 2)]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write the whole table, sorted by file, codec and quality."""
    ordered = sorted(rows, key=lambda row: (row.file, row.codec, row.quality))
    lines = [_line(COLUMNS), *(_line(_cells(row)) for row in ordered)]
    write_whole(path, "".join(lines).encode())


def append_row(path: Path, row: Row) -> None:
    """Add one row to a table that `write_rows` began; it is on disk when this returns."""
    with path.open("a", encoding="utf-8", newline="") as table:
        table.write(_line(_cells(row)))


def _line(cells: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _cells(row: Row) -> list[str]:
    return [_cell(name, getattr(row, name)) for name in COLUMNS]


def _cell(name: str, value: float | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        # Seconds are noise beyond the third digit.
        return f"{value:.3g}" if name.endswith("_s") else f"{value:.7g}"
    return str(value)


def _parse(path: Path, number: int, cells: Sequence[str]) -> Row:
    if len(cells) != len(COLUMNS):
        raise InputError(f"{path}: line {number}: want {len(COLUMNS)} cells, got {len(cells)}")
    values = {name: _value(_TYPES[name], cell) for name, cell in zip(COLUMNS, cells, strict=True)}
    return Row(**values)


def _value(kind: typing.Any, cell: str) -> typing.Any:
    if kind == float | None:
        return float(cell) if cell else None
    return kind(cell)

"""Files of Gaussians by extension, and numbered sequences of them. Knows no codec.

`.ply` keeps all; `.spz` and `.splat` keep levels of 8 bits. A `.splat` file is 32 bytes for each
Gaussian: position and scale as float32, colour and opacity, then w, x, y, z, of 8 bits each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import final, overload

import numpy as np

from codec.errors import CodecError, InputError, LimitError, UsageError
from codec.gaussians import FIRST_HARMONIC, Gaussians
from codec.io.files import check_output, read_bytes, write_whole
from codec.io.ply import checked, pack_ply, parse_ply
from codec.io.spz import logits_of, pack_spz, parse_spz

__all__ = [
    "EXTENSIONS",
    "MAX_GAUSSIANS",
    "SplatFiles",
    "is_splats",
    "read_splats",
    "sequence_of",
    "targets_of",
    "write_splats",
]

EXTENSIONS = (".ply", ".spz", ".splat")
MAX_GAUSSIANS = 1 << 24

PATTERN = re.compile(r"([^%]*)%(0\d{1,2})?d([^%]*)")  # of the name of a frame's file

ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])


def read_splats(source: str | Path, *, max_gaussians: int = MAX_GAUSSIANS) -> Gaussians:
    """The Gaussians of a `.ply`, `.spz` or `.splat` file.

    Raises:
        InputError: there is no such file, or it is not what its extension says.
        LimitError: it has more than `max_gaussians`.
        ModelError: a package that its format needs is not installed.
    """
    extension = Path(source).suffix.lower()
    if extension not in EXTENSIONS:
        raise InputError(f"want a name that ends in {', '.join(EXTENSIONS)}, got {extension!r}")
    data = read_bytes(source)
    if extension == ".ply":
        return parse_ply(data, max_gaussians=max_gaussians)
    if extension == ".spz":
        return parse_spz(data, max_gaussians=max_gaussians)
    return _parse_splat(data, max_gaussians)


def is_splats(source: str | Path) -> bool:
    """Whether a name is one of Gaussians: a folder, or a file or pattern with their extension."""
    path = Path(source)
    return path.suffix.lower() in EXTENSIONS or path.is_dir()


@final
class SplatFiles(Sequence[Gaussians]):
    """The frames of `sequence_of`, each read when it is asked for and not kept.

    An error says which file it is about.
    """

    def __init__(self, source: str | Path) -> None:
        """See `sequence_of`."""
        self._paths = sequence_of(source)

    def __len__(self) -> int:
        """How many frames there are."""
        return len(self._paths)

    @overload
    def __getitem__(self, number: int) -> Gaussians: ...
    @overload
    def __getitem__(self, number: slice) -> list[Gaussians]: ...
    def __getitem__(self, number: int | slice) -> Gaussians | list[Gaussians]:
        """A frame; see `read_splats`."""
        if isinstance(number, slice):
            return [self[index] for index in range(len(self))[number]]
        path = self._paths[number]
        try:
            return read_splats(path)
        except CodecError as error:
            raise type(error)(f"{path.name}: {error}") from error


def write_splats(target: str | Path, gaussians: Gaussians, *, spz_version: int = 4) -> None:
    """Write a `.ply`, `.spz` or `.splat` file, whole or not at all.

    Raises:
        UsageError: another extension or version, a scene that the format cannot state, or a place
            that cannot be written to.
        ModelError: a package that the format needs is not installed.
    """
    extension = Path(target).suffix.lower()
    if extension == ".ply":
        data = pack_ply(gaussians)
    elif extension == ".spz":
        data = pack_spz(gaussians, version=spz_version)
    elif extension == ".splat":
        data = _pack_splat(gaussians)
    else:
        raise UsageError(f"want a name that ends in {', '.join(EXTENSIONS)}, got {extension!r}")
    write_whole(target, data)


def sequence_of(source: str | Path) -> list[Path]:
    """The files of a scene, one for each frame, in order.

    Args:
        source: a file; a folder of files of one extension, in the order of the last number in their
            names; or a pattern as `frames/%04d.ply`, whose numbers have no gap.

    Raises:
        InputError: there is no such file, a frame is missing, or the folder has other files too.
    """
    path = Path(source)
    pattern = PATTERN.fullmatch(path.name)
    try:
        if pattern is not None:
            return _numbered(path.parent, *pattern.groups())
        if path.is_dir():
            return _folder(path)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}") from error
    if not path.is_file():
        raise InputError("cannot be read: no such file, folder or pattern")
    return [path]


def targets_of(target: str | Path, numbers: Sequence[int], *, force: bool) -> list[Path]:
    """The files that frames are written to; nothing is written yet.

    Args:
        target: a pattern as `frames/%04d.ply`, or for one frame the name of its file.
        numbers: of the frames, which go into the pattern.
        force: whether files that exist may be replaced.

    Raises:
        UsageError: it is no such name, or lies in no folder, or a file exists.
    """
    path = Path(target)
    if path.suffix.lower() not in EXTENSIONS:
        raise UsageError(f"want a name that ends in {', '.join(EXTENSIONS)}, got {path.suffix!r}")
    if PATTERN.fullmatch(path.name):
        paths = [path.with_name(path.name % number) for number in numbers]
    elif len(numbers) == 1:
        paths = [path]
    else:
        raise UsageError(
            f"{len(numbers)} frames want a pattern as %04d{path.suffix}, or --frames A:B one frame"
        )
    for path in paths:
        check_output(path, force=force)
    return paths


def _numbered(folder: Path, before: str, digits: str | None, after: str) -> list[Path]:
    width = int(digits or 0)
    found: dict[int, Path] = {}
    for path in folder.iterdir():
        match = re.fullmatch(f"{re.escape(before)}([0-9]+){re.escape(after)}", path.name)
        if match and match[1] == f"{int(match[1]):0{width}d}":
            found[int(match[1])] = path
    numbers = sorted(found)
    for number, want in zip(numbers, range(min(numbers, default=0), 1 << 62), strict=False):
        if number != want:
            raise InputError(f"frame {want} is missing; the next is {number}")
    if not found:
        raise InputError(f"no file as {before}%{digits or ''}d{after} in the folder")
    return [found[number] for number in numbers]


def _folder(folder: Path) -> list[Path]:
    files = [path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS]
    if len({path.suffix.lower() for path in files}) != 1:
        raise InputError(f"want files of one of {', '.join(EXTENSIONS)} in the folder")
    numbers = {path: re.findall(r"[0-9]+", path.stem) for path in files}
    if len(files) > 1 and not all(numbers.values()):
        raise InputError("want a number in the name of each frame")
    files.sort(key=lambda path: (int((numbers[path] or ["0"])[-1]), path.name))
    return files


def _parse_splat(data: bytes, max_gaussians: int) -> Gaussians:
    if len(data) % ROW.itemsize:
        raise InputError(f".splat: want {ROW.itemsize} bytes a Gaussian, got {len(data)} in all")
    if len(data) // ROW.itemsize > max_gaussians:
        raise LimitError(f"{len(data) // ROW.itemsize} Gaussians are more than {max_gaussians}")
    rows = np.frombuffer(data, ROW)
    with np.errstate(divide="ignore", invalid="ignore"):  # what is not finite is refused below
        scales = np.log(rows["scale"])
    colours = rows["rgba"][:, None, :3] / 255
    return checked(
        means=rows["mean"].astype(np.float32),
        quats=((rows["quat"].astype(np.float64) - 128) / 128).astype(np.float32),
        scales=scales.astype(np.float32),
        opacities=logits_of(rows["rgba"][:, 3]),
        sh=((colours - 0.5) / FIRST_HARMONIC).astype(np.float32),
    )


def _pack_splat(gaussians: Gaussians) -> bytes:
    rows = np.zeros(len(gaussians), ROW)
    largest = float(gaussians.scales.max(initial=0))
    smallest = float(gaussians.scales.min(initial=0))
    if not -87 < smallest <= largest < 88:
        raise UsageError(f".splat: scales of e^{smallest:g} to e^{largest:g} do not fit float32")
    rows["mean"] = gaussians.means
    rows["scale"] = np.exp(gaussians.scales)
    alpha = 1 / (1 + np.exp(-gaussians.opacities.astype(np.float64)))
    levels = np.concatenate(
        [0.5 + FIRST_HARMONIC * gaussians.sh[:, 0].astype(np.float64), alpha[:, None]], 1
    )
    rows["rgba"] = np.clip(np.rint(255 * levels), 0, 255)
    quats = gaussians.quats.astype(np.float64)
    unit = quats / np.linalg.norm(quats, axis=1, keepdims=True)
    rows["quat"] = np.clip(np.rint(128 * unit + 128), 0, 255)
    return rows.tobytes()

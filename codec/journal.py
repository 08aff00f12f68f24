"""Groups of a video that are coded, kept in a file until the stream is whole. Knows no family.

The file has a line for the encode that it belongs to, then a line for each group: the CRC-32 of
what was coded, and the payload in base64. It is read as far as it goes.

How far the search for a group has come is in a second file: a line for the encode, the CRC-32 of
the frames and that of the rest, then safetensors.
"""

from __future__ import annotations

import base64
import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from codec.errors import UsageError
from codec.io.files import write_whole
from codec.models.base import AbstractBookmark

__all__ = ["Bookmark", "Journal"]

logger = logging.getLogger(__name__)


@final
class Journal:
    """What an encode has done so far."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        """Nothing is written before the first group is done.

        Args:
            path: of the file, which need not exist.
            resume: whether to take from it what is there.
        """
        self._path, self._resume = path, resume
        self._unfinished = path.with_name(f"{path.name}.unfinished")
        self._known: dict[int, bytes] = {}
        self._lines: list[Any] = []

    def begin(self, encode: Sequence[object]) -> None:
        """Say what is being encoded and how: groups of another encode are not taken.

        Args:
            encode: whatever changes a payload, as JSON has it.
        """
        head = json.loads(json.dumps(encode))
        lines = _read(self._path) if self._resume else []
        if lines and lines[0] != head:
            logger.warning("%s is of another encode: nothing is resumed", self._path)
            lines = []
        self._lines = lines or [head]
        self._known = {crc: base64.b64decode(payload) for crc, payload in lines[1:]}

    def find(self, frames: Sequence[NDArray[np.uint8]]) -> bytes | None:
        """The payload of a group that was coded before."""
        return self._known.get(_crc(frames))

    def add(self, frames: Sequence[NDArray[np.uint8]], payload: bytes) -> None:
        """Keep the payload of a group, and no longer how far it had come.

        Raises:
            UsageError: the file cannot be written.
        """
        self._lines.append([_crc(frames), base64.b64encode(payload).decode()])
        _write(self._path, "".join(f"{json.dumps(line)}\n" for line in self._lines).encode())
        self._unfinished.unlink(missing_ok=True)

    def bookmark(self, frames: Sequence[NDArray[np.uint8]]) -> Bookmark:
        """Where the search for the payload of a group keeps how far it has come."""
        key = [self._lines[0], _crc(frames)]
        return Bookmark(self._unfinished, key, resume=self._resume)

    def close(self) -> None:
        """The stream is written: the files go."""
        self._path.unlink(missing_ok=True)
        self._unfinished.unlink(missing_ok=True)


@final
class Bookmark(AbstractBookmark):
    """How far the search for one group has come."""

    def __init__(self, path: Path, key: Sequence[object], *, resume: bool) -> None:
        """Nothing is written before something is kept.

        Args:
            path: of the file, which need not exist and may be another search's.
            key: what is searched, as JSON has it.
            resume: whether to take from it what is there.
        """
        self._path, self._key, self._resume = path, key, resume

    def find(self) -> Mapping[str, Tensor] | None:
        """See `AbstractBookmark.find`; a warning if something is there but not of this search."""
        if not self._resume or not self._path.exists():
            return None
        with suppress(OSError, ValueError, RuntimeError, SafetensorError):
            head, _, body = self._path.read_bytes().partition(b"\n")
            if json.loads(head) == [*self._key, zlib.crc32(body)]:
                return load(body)
        logger.warning("%s is damaged or of another encode: it is not resumed", self._path)
        return None

    def keep(self, state: Mapping[str, Tensor]) -> None:
        """See `AbstractBookmark.keep`."""
        body = save({name: value.detach().cpu().contiguous() for name, value in state.items()})
        head = json.dumps([*self._key, zlib.crc32(body)])
        _write(self._path, head.encode() + b"\n" + body)


def _write(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _read(path: Path) -> list[Any]:
    """All lines that are whole."""
    lines = []
    with suppress(OSError, ValueError):
        for line in path.read_text("utf-8").splitlines():
            lines.append(json.loads(line))
    return lines


def _crc(frames: Sequence[NDArray[np.uint8]]) -> int:
    crc = 0
    for frame in frames:
        crc = zlib.crc32(np.ascontiguousarray(frame).tobytes(), crc)
    return crc

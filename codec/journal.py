"""Groups of a video that are coded, kept in a file until the stream is whole. Knows no codec.

The file has a line for the encode that it belongs to, then a line for each group: the CRC-32 of
what was coded, and the payload in base64. It is read as far as it goes; whoever was killed while
writing has lost a line.
"""

from __future__ import annotations

import base64
import json
import logging
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from codec.errors import UsageError

__all__ = ["Journal"]

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
        """Keep the payload of a group.

        Raises:
            UsageError: the file cannot be written.
        """
        self._lines.append([_crc(frames), base64.b64encode(payload).decode()])
        try:
            self._path.write_text("".join(f"{json.dumps(line)}\n" for line in self._lines))
        except OSError as error:
            raise UsageError(f"{self._path}: {error.strerror or error}") from error

    def close(self) -> None:
        """The stream is written: the file goes."""
        self._path.unlink(missing_ok=True)


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

"""Bytes from a path or standard input, and whole files written or not at all. Knows no format."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from codec.errors import InputError, UsageError

__all__ = ["STANDARD", "check_output", "read_bytes", "write_whole"]

STANDARD = "-"
"""The name of standard input and of standard output."""


def read_bytes(source: str | Path) -> bytes:
    """All bytes of a file, or of standard input for `-`.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    try:
        if source == STANDARD:
            return sys.stdin.buffer.read()
        return Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}") from error


def check_output(target: str | Path, *, force: bool) -> None:
    """Refuse an output before any work is done for it.

    Raises:
        UsageError: it exists and `force` is off, is a folder, or lies in a folder that is missing.
    """
    if target == STANDARD:
        return
    path = Path(target)
    if path.is_dir():
        raise UsageError("the output is a folder")
    if path.is_file() and not force:
        raise UsageError("the output exists; --force replaces it")
    if not path.exists() and not path.absolute().parent.is_dir():
        raise UsageError("the output's folder does not exist")


def write_whole(target: str | Path, data: bytes | memoryview) -> None:
    """Write `data` to `target`, or leave `target` as it was; `-` is standard output.

    Raises:
        UsageError: the place cannot be written to.
        BrokenPipeError: nobody reads standard output any more.
    """
    # The file that a link names is replaced, not the link.
    path = Path(os.path.realpath(target))
    try:
        if target == STANDARD:
            _write(sys.stdout.buffer, data)
            return
        if path.exists() and not path.is_file():  # a device or a pipe: nothing to rename over
            with path.open("wb") as file:
                _write(file, data)
            return
        partial = path.with_name(f".{path.name[:200]}.{threading.get_native_id()}.partial")
        try:
            partial.write_bytes(data)
            if path.exists():
                partial.chmod(path.stat().st_mode & 0o7777)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror or error}") from error


def _write(file: BinaryIO, data: bytes | memoryview) -> None:
    file.write(data)
    file.flush()

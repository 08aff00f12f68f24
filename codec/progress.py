"""How long the parts of a job took, and how far it has come. Knows no job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO, final

__all__ = ["Bar", "Progress", "Stopwatch", "unseen", "within"]


class Progress(Protocol):
    """What is told how far a job has come."""

    def __call__(self, part: float, note: str = "") -> None:
        """`part` of it is done, 0 to 1; `note` says in a few words how well it goes."""


def within(progress: Progress, begin: float, share: float) -> Progress:
    """The `Progress` of a job that is a part of another: from `begin` on, `share` of the whole."""

    def told(part: float, note: str = "") -> None:
        progress(begin + share * part, note)

    return told


DELAY = 2.0  # seconds: what is faster needs no bar
CELLS = 32


def unseen(part: float, note: str = "") -> None:
    """The `Progress` that nobody watches."""


@final
class Stopwatch:
    """Seconds of wall-clock time, each part and the whole since it was made."""

    def __init__(self) -> None:
        self._start = self._since = time.perf_counter()
        self._current: str | None = None
        self._parts = dict.fromkeys(("load", "transform", "entropy"), 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add what happens inside to `name`; a part inside this one counts only for itself."""
        outer = self._current
        self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def _switch(self, name: str | None) -> None:
        now = time.perf_counter()
        if self._current is not None:
            self._parts[self._current] += now - self._since
        self._current, self._since = name, now

    @property
    def seconds(self) -> dict[str, float]:
        """All parts and `total`, to the microsecond."""
        total = time.perf_counter() - self._start
        return {name: round(value, 6) for name, value in {**self._parts, "total": total}.items()}


@final
class Bar:
    """A bar on a terminal, after two seconds; nothing on anything else."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._start = time.monotonic()
        self._is_seen = False

    def __call__(self, part: float, note: str = "") -> None:
        """Draw it with `part` of it filled, 0 to 1, the time that is left, and a note."""
        passed = time.monotonic() - self._start
        if passed < DELAY or not self._out.isatty():
            return
        part = min(max(part, 0.0), 1.0)
        done = round(CELLS * part)
        left = f"{passed / part - passed:.0f} s left" if part else ""
        self._out.write(f"\r[{'#' * done}{'.' * (CELLS - done)}] {part:4.0%} {left}  {note}\x1b[K")
        self._out.flush()
        self._is_seen = True

    def close(self) -> None:
        """Wipe it away."""
        if self._is_seen:
            self._out.write("\r\x1b[K")
            self._out.flush()
            self._is_seen = False

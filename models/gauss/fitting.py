"""Gaussians from pictures of several cameras, moment by moment, on the lattice of a stream.

Encoder only. Knows pixels and cameras, no stream; holds the pictures of two moments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from codec.cameras import Camera
from codec.gaussians import Gaussians
from codec.models.base import Search, ended_by
from codec.models.gauss.following import PIXELS, Gating, followed_by, visible
from codec.models.gauss.growing import FIRST_SHARE, detail, first_guess, grown
from codec.models.gauss.lattice import WIDTH, Rows, gaussians_of, key_rows
from codec.models.gauss.plan import Plan
from codec.models.gauss.planning import fineness, planned

__all__ = ["Fitting", "fit"]

Due: TypeAlias = Callable[[int, float], float]

MOST = 1 << 17
ROOM = 1.25  # of the Gaussians of the first moment, for those that come later
INSTANT = 1e-3  # seconds: less is not lent
SETTLING = 8  # times that rows are made of what rows stand for, until they are the same


@final
@dataclass(frozen=True)
class Fitting:
    """How hard to fit.

    Attributes:
        gaussians: there may be in the first moment at most, and a quarter more later.
        degree: of the harmonics, 0 to 3.
        steps: for the first moment, of one picture each.
        epochs: for each later one: how often each picture is looked at.
        gating: what decides that a Gaussian changes.
        seed: of chance; the same gives the same.
    """

    gaussians: int = 2000
    degree: int = 0
    steps: int = 400
    epochs: int = 10
    gating: Gating = field(default_factory=Gating)
    seed: int = 0

    @classmethod
    def of(cls, effort: int, pixels: int) -> Fitting:
        """How hard an effort of 0 to 9 is, for pictures of so many pixels."""
        return cls(
            gaussians=min(max(pixels // PIXELS, 64), MOST),
            steps=400 + 200 * effort,
            epochs=8 + 2 * effort,
        )

    def clock(self, cameras: Sequence[Camera], count: int, search: Search) -> Due:
        """What divides the time of a search among `count` moments by the steps that they take."""
        later = self.epochs * len(cameras)
        total = self.steps + later * (count - 1)
        end = time.monotonic() + search.seconds
        begun: dict[int, float] = {}

        def due(moment: int, share: float) -> float:
            now = time.monotonic()
            since = begun.setdefault(moment, now)
            before = self.steps + later * (moment - 1) if moment else 0
            own = later if moment else self.steps
            search.watch((before + share * own) / total, f"moment {moment + 1} of {count}")
            lent = (end - since) * own / max(total - before, own)
            stopped = search.interrupted is not None and search.interrupted.is_set()
            return 1.0 if stopped or now >= end else max(share, (now - since) / max(lent, INSTANT))

        return due


def fit(
    cameras: Sequence[Camera],
    frames: Iterable[NDArray[np.uint8]],
    quality: int,
    fitting: Fitting,
    due: Due = lambda moment, share: share,
    interrupted: Event | None = None,
) -> tuple[Plan, Iterator[Gaussians]]:
    """The plan of a stream, and a scene that lies on its lattice, one moment for each of `frames`.

    Args:
        cameras: V of them.
        frames: `(V, H, W, 3)` each, at least one.
        quality: 0..100, whose steps Gaussians have.
        fitting: how hard to fit.
        due: is told the moment and the share of its steps that is done, and tells that of its time
            that is gone; from 1 on the moment ends.
        interrupted: see `Search`; moments to come are those that `due` ends at once.

    Raises:
        UsageError: the cameras have no view in common.
    """
    generator = np.random.default_rng(fitting.seed)
    source = iter(frames)
    first = next(source)
    start = first_guess(
        cameras,
        first,
        detail(first),
        max(1, int(FIRST_SHARE * fitting.gaussians)),
        fitting.degree,
        generator,
    )
    key = grown(
        start,
        cameras,
        first,
        steps=fitting.steps,
        most=fitting.gaussians,
        generator=generator,
        due=partial(due, 0),
        interrupted=interrupted,
    )
    plan = planned([key], quality)
    # Errors are about as large as steps, and so what a bit may cost.
    gating = replace(fitting.gating, rate=fitting.gating.rate / fineness(quality))

    def moments() -> Iterator[Gaussians]:
        rows, before = _settled(key, plan), first
        motion = np.zeros((len(rows.base), WIDTH), np.int32)
        yield gaussians_of(rows, plan)
        for number, now in enumerate(source, 1):
            with ended_by(interrupted):  # a moment in the making is then left as it was
                rows, motion = followed_by(
                    rows,
                    motion,
                    plan,
                    cameras,
                    before,
                    now,
                    most=int(ROOM * fitting.gaussians),
                    epochs=fitting.epochs,
                    gating=gating,
                    pace=max(fineness(quality), 1.0),
                    generator=generator,
                    due=partial(due, number),
                )
            before = now
            yield gaussians_of(rows, plan)

    return plan, moments()


def _settled(key: Gaussians, plan: Plan) -> Rows:
    """Rows that an encoder finds again in what they stand for; a few turns may stay apart."""
    rows, _ = key_rows(key, plan)
    lives = visible(rows, plan)
    rows = Rows(rows.base[lives], rows.rest[lives])
    for _ in range(SETTLING):
        again, _ = key_rows(gaussians_of(rows, plan), plan)
        if (again.base == rows.base).all():
            break
        rows = again
    return rows

"""The first stream of a picture: which prior, which grids, what is added to the prior.

As symbols it is one array, whose sizes depend on the prior. Knows no latent and no pixel.

    1          the prior's number
    10         1 for each of `GRIDS` that is empty, which means all 0
    tensors    the scale index of each, 0 if it is skipped
    7          the exponent of each of `GROUPS`; 0, and not coded, if all of its tensors are skipped
    the rest   q of all tensors; 0, and not coded, of those that are skipped
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from codec.entropy import AbstractStream, IntArray, Tables
from codec.errors import BitstreamError
from codec.models.inr.layout import GRIDS
from codec.models.inr.parameters import GROUPS, Deltas, Prior, group_of
from codec.models.inr.tables import EMPTY, EXPONENT, PRIOR, SCALE, SCALES

__all__ = ["Networks", "code_networks"]

HEAD = 1 + len(GRIDS)


@final
@dataclass(frozen=True)
class Networks:
    """What the stream says.

    Attributes:
        prior: its number.
        empty: of each of `GRIDS`.
        deltas: what is added to that prior.
    """

    prior: int
    empty: Sequence[bool]
    deltas: Deltas

    def symbols(self) -> IntArray:
        """As one array."""
        scales, exponents = self.deltas.scales, self.deltas.exponents
        used = {group_of(name) for name, scale in scales.items() if scale}
        parts = [
            [self.prior],
            self.empty,
            list(scales.values()),
            [exponents[group] if group in used else 0 for group in GROUPS],
            *(q.reshape(-1) for q in self.deltas.q.values()),
        ]
        return np.concatenate([np.asarray(part, np.int32) for part in parts])

    @classmethod
    def read(cls, symbols: IntArray, priors: Sequence[Prior]) -> Networks:
        """The inverse of `symbols`."""
        shapes = {name: value.shape for name, value in priors[symbols[0]].values.items()}
        head, scales, exponents, rest = _split(symbols, len(shapes))
        q = {}
        for name, shape in shapes.items():
            own, rest = np.split(rest, [int(np.prod(shape))])
            q[name] = own.reshape(shape)
        return cls(
            prior=int(head[0]),
            empty=(head[1:] == 1).tolist(),
            deltas=Deltas(
                dict(zip(GROUPS, exponents.tolist(), strict=True)),
                dict(zip(shapes, scales.tolist(), strict=True)),
                q,
            ),
        )


def code_networks(
    stream: AbstractStream,
    symbols: IntArray | None,
    priors: Sequence[Prior],
    laplaces: Tables,
    side: Tables,
) -> IntArray:
    """Code the symbols of a `Networks`; `None` when decoding.

    Args:
        stream: of the range coder.
        symbols: of `Networks.symbols`.
        priors: that there are.
        laplaces: of `laplace_tables`.
        side: of `side_tables`.

    Raises:
        BitstreamError: a number is out of its range, or the stream is damaged.
    """

    def numbers(given: IntArray | None, rows: Sequence[int], most: Sequence[int]) -> IntArray:
        found = stream.code(given, side, np.array(rows, np.int32))
        if (found < 0).any() or (found > most).any():
            raise BitstreamError(f"networks: want numbers of 0 to {list(most)}, got {found}")
        return found

    most = [len(priors) - 1, *(1 for _ in GRIDS)]
    rows = [PRIOR, *(EMPTY for _ in GRIDS)]
    head = numbers(None if symbols is None else symbols[:HEAD], rows, most)
    tensors = priors[head[0]].values
    count = len(tensors)
    known = [None] * 4 if symbols is None else _split(symbols, count)

    scales = numbers(known[1], [SCALE] * count, [SCALES - 1] * count)
    used = {group_of(name) for name, scale in zip(tensors, scales, strict=True) if scale}
    places = np.array([group in used for group in GROUPS])
    exponents = np.zeros(len(GROUPS), np.int32)
    exponents[places] = numbers(
        None if known[2] is None else known[2][places],
        [EXPONENT] * len(used),
        [most for group, most in GROUPS.items() if group in used],
    )
    indexes = np.repeat(scales, [value.size for value in tensors.values()])
    coded = indexes > 0
    q = np.zeros(len(indexes), np.int32)
    q[coded] = stream.code(None if known[3] is None else known[3][coded], laplaces, indexes[coded])
    return np.concatenate([head, scales, exponents, q])


def _split(symbols: IntArray, tensors: int) -> list[IntArray]:
    """Head, scales, exponents and q."""
    return np.split(symbols, np.cumsum([HEAD, tensors, len(GROUPS)]))

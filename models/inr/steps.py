"""How finely a picture's networks are written: bits against what they buy. The encoder's alone.

Greedy, as in Cool-chic: group by group the exponent at which cost and bits are least together,
with all groups before at theirs and all groups after unrounded. Whether the prior is good enough as
it is is asked for whole groups, and then for single tensors, the dearest first. At last single
integers move by one where that costs less, to 0 in one pass and from it in the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from codec.entropy import IntArray, Tables, code_lengths
from codec.models.inr.parameters import (
    GROUPS,
    Q_MAX,
    Deltas,
    Prior,
    Values,
    codes,
    floats,
    group_of,
    quantise,
)
from codec.models.inr.tables import SCALES

__all__ = ["Cost", "best_scale", "choose_steps"]

Cost: TypeAlias = Callable[[Mapping[str, Tensor]], float]

# Where the search begins: what a photograph wanted.
FIRST = {
    "arm.weight": 6,
    "arm.bias": 6,
    "ifce.weight": 6,
    "ifce.bias": 6,
    "syn.weight": 9,
    "syn.bias": 9,
    "up.weight": 8,
}


def best_scale(q: IntArray, tables: Tables) -> tuple[int, float]:
    """The scale index whose table codes integers in the fewest bits, and these; 0, 0 for zeros.

    Args:
        q: of any shape, within +-2**20.
        tables: of `laplace_tables`.
    """
    if not q.any():
        return 0, 0.0
    indexes = np.repeat(np.arange(1, SCALES, dtype=np.int32), q.size)
    symbols = np.tile(q.reshape(-1), SCALES - 1)
    bits = code_lengths(symbols, tables, indexes).reshape(SCALES - 1, -1).sum(1)
    best = int(bits.argmin())
    return best + 1, float(bits[best])


def choose_steps(
    values: Values,
    prior: Prior,
    *,
    rate: Cost,
    distortion: Cost,
    bits_worth: float,
    tables: Tables,
    device: torch.device,
    evaluations: int = 40,
) -> Deltas:
    """What to add to a prior for networks about as good as `values`.

    Args:
        values: trained, by the names of `layout.shapes`.
        prior: of the same preset.
        rate: what a picture's latents cost with networks of `(1, ...)` float32; only those that
            predict latents matter.
        distortion: what its pixels cost, in the same unit; only the others matter.
        bits_worth: what a bit of the networks costs.
        tables: of `laplace_tables`.
        device: of the networks.
        evaluations: how often costs may be asked for, at least once for each of 7 groups; what the
            search for steps leaves goes into single integers.
    """
    costs = {"rate": rate, "distortion": distortion}
    return _Search(values, prior, costs, bits_worth, tables, device).run(evaluations)


@final
class _Search:
    """Deltas in the making, and the networks that they and all that is not yet rounded give."""

    def __init__(
        self,
        values: Values,
        prior: Prior,
        costs: Mapping[str, Cost],
        bits_worth: float,
        tables: Tables,
        device: torch.device,
    ) -> None:
        self._values, self._prior, self._tables, self._device = values, prior, tables, device
        self._costs, self._bits_worth = costs, bits_worth
        self._found = dict.fromkeys(costs, 0.0)
        self._networks = floats(values, device)
        self._exponents = dict.fromkeys(GROUPS, 0)
        self._q = {name: np.zeros(value.shape, np.int32) for name, value in values.items()}
        self._bits = dict.fromkeys(values, 0.0)
        self._best = math.inf
        self._left = 0

    def run(self, evaluations: int) -> Deltas:
        spare = evaluations
        for group in GROUPS:
            self._left = evaluations // len(GROUPS)
            spare -= self._left
            self._choose_exponent(group)
            spare += self._left
        self._left = spare
        self._skip_tensors()
        idle, direction = 0, -1
        while self._left and idle < 2:  # neither direction is any good
            idle = 0 if self._nudge(direction) else idle + 1
            direction = -direction
        scales = {name: best_scale(q, self._tables)[0] for name, q in self._q.items()}
        return Deltas(self._exponents, scales, self._q)

    def _choose_exponent(self, group: str) -> None:
        """Downhill from the first exponent, one by one; nothing at all is the other candidate."""
        names = [name for name in self._values if group_of(name) == group]

        def attempt(k: int) -> bool:
            q = {name: quantise(name, self._values[name], self._prior, k) for name in names}
            return self._attempt(q, k)

        self._best = math.inf
        self._attempt({name: self._q[name] for name in names}, 0)
        attempt(FIRST[group])
        for direction in (-1, 1):
            k = FIRST[group] + direction
            while 0 <= k <= GROUPS[group] and attempt(k):
                k += direction
            if k != FIRST[group] + direction:
                break

    def _skip_tensors(self) -> None:
        for name in sorted(self._bits, key=lambda name: -self._bits[name]):
            if self._bits[name]:
                self._attempt({name: np.zeros_like(self._q[name])}, self._exponents[group_of(name)])

    def _nudge(self, direction: int) -> bool:
        """Try to move every integer that is not 0 by one, the small ones first; whether any did."""
        moved = False
        for name in self._q:
            for place in np.argsort(np.abs(self._q[name]), axis=None, kind="stable"):
                q = self._q[name].copy()
                value = int(q.reshape(-1)[place])
                if 0 < abs(value) < Q_MAX:
                    q.reshape(-1)[place] += direction * np.sign(value)
                    moved |= self._attempt({name: q}, self._exponents[group_of(name)])
        return moved

    def _attempt(self, q: Mapping[str, IntArray], k: int) -> bool:
        """Take over tensors of one group if that is better than what is there; whether it was."""
        if not self._left:
            return False
        self._left -= 1
        prior = self._prior.values
        rounded = {name: prior[name] + value * 2.0**-k for name, value in q.items()}
        networks = self._networks | floats(rounded, self._device)
        part = "rate" if all(map(codes, q)) else "distortion"
        found = self._found | {part: self._costs[part](networks)}
        bits = self._bits | {name: best_scale(value, self._tables)[1] for name, value in q.items()}
        total = sum(found.values()) + self._bits_worth * sum(bits.values())
        if not total < self._best:
            return False
        self._best, self._found, self._networks, self._bits = total, found, networks, bits
        self._q.update(q)
        self._exponents |= {group_of(name): k for name in q}
        return True

"""A slice's symbols, their order, and the slice they make. Knows integers, no Gaussian's look.

Symbols of a key frame: `head`, how many Gaussians and where they part; `new`, their rows; `rest`,
their harmonics after the first. Those of a later frame begin with `head`, of what is born, and
`gates`, what becomes of each Gaussian; then come `moves` of those that change, and `new`; `rest`
holds harmonics of both, in this order.

The state of a slice is `base` and `rest`, its Gaussians' rows and harmonics; `motion`, by how much
rows changed in the frame before; `active`, which parts did. docs/format/gauss.md has it all.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from codec.entropy import AbstractCausalModel, AbstractCoder, AbstractStream, IntArray, Method
from codec.errors import BitstreamError
from codec.models.base import SliceState, Symbols
from codec.models.gauss.lattice import WIDTH
from codec.models.gauss.plan import BIN_MAX, CELL_BITS, Plan
from codec.models.gauss.tables import GROUPS, even

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "CHANGES",
    "DIES",
    "SLICE_MAX",
    "STAYS",
    "Contexts",
    "begun",
    "change",
    "chosen",
    "code_slice",
    "created",
]

SLICE_MAX = 8192
"""Gaussians of a slice, of which a key frame fills a half: births find a place."""

STAYS, CHANGES, DIES = range(3)
# Operations of a number at most; and more of each of a new row's, for its centre.
NUMBER, CENTRE = 32, 8

Probabilities: TypeAlias = NDArray[np.uint16]
Contexts: TypeAlias = NDArray[np.uint16]
"""`(CONTEXTS, 2)` the probability of a 1 in 2**-16, as it follows fast and as it follows slowly."""


def begun(initial: Probabilities) -> Contexts:
    """Contexts of a slice before anything of it is coded; initial is `(CONTEXTS,)`."""
    return np.stack([initial, initial], 1)


def code_slice(
    coder: AbstractCoder,
    symbols: Symbols | None,
    before: SliceState | None,
    plan: Plan,
    contexts: Contexts,
    *,
    detail: bool,
) -> Symbols:
    """Code the symbols of a slice in their one order; `symbols` is None when decoding.

    Args:
        coder: of any direction.
        symbols: as this function returns them.
        before: the slice in the frame before; None in a key frame.
        plan: of the stream.
        contexts: what `begun` gives; they follow what is coded.
        detail: whether there is a stream `rest`; without, its symbols are 0.

    Raises:
        BitstreamError: the slice has too many Gaussians, or the stream is damaged.
    """
    walks = _Walks(coder.open("base", Method.RANS), symbols, contexts)
    old = 0 if before is None else len(before["base"])
    found = {"head": walks.code("head", 2, _kernels().head)}
    births = int(found["head"][0])
    if births < 0 or found["head"][1] >= CELL_BITS:
        raise BitstreamError(f"slice: want Gaussians that part in the lattice, got {found['head']}")
    # Of Gaussians that the slice has already, if any are born; of those that change.
    known, rest = np.zeros((0, WIDTH), np.int32), np.zeros((0, plan.rest_width), np.int32)
    active = np.zeros(0, np.int32)
    if before is not None:
        gates = found["gates"] = walks.code("gates", old, _kernels().gates, before["active"])
        moving, lives = np.flatnonzero(gates == CHANGES), gates != DIES
        rows, active = before["base"][moving], before["active"][moving]
        found["moves"] = walks.code(
            "moves", rows.size, _kernels().moves, rows, before["motion"][moving], active,
            plan.integers, np.zeros((0, WIDTH)),
        )  # fmt: skip
        old = int(lives.sum())
        if births:
            known = before["base"].copy()
            known[moving] += found["moves"].reshape(rows.shape)
            known = known[lives]
    if old + births > SLICE_MAX:
        raise BitstreamError(f"slice: {old + births} Gaussians; the limit is {SLICE_MAX}")
    near = np.zeros((len(known) + births, 3), np.int32)
    found["new"] = walks.code(
        "new", births * WIDTH, _kernels().new_rows, known, int(found["head"][1]), plan.integers,
        near, each=CENTRE,
    )  # fmt: skip
    count = (len(active) + births) * plan.rest_width
    found["rest"] = np.zeros(count, np.int32)
    if detail:
        split = len(active) * plan.rest_width
        given = None
        if symbols is not None:
            given = {"tunes": symbols["rest"][:split], "rest": symbols["rest"][split:]}
        walks = _Walks(coder.open("rest", Method.RANS), given, contexts)
        tunes = walks.code("tunes", split, _kernels().tunes, active)
        if births and before is not None:
            rest = before["rest"].copy()
            rest[moving] += tunes.reshape(len(active), plan.rest_width)
            rest = rest[lives]
        new = walks.code("rest", count - split, _kernels().new_rests, rest, near)
        found["rest"] = np.concatenate([tunes, new])
    return found


def chosen(moves: IntArray, aims: NDArray[np.float64], before: SliceState, plan: Plan) -> IntArray:
    """Moves within `STAY` steps of what they should be, of those the cheapest. Encoder only.

    Args:
        moves: `(n, WIDTH)` in whole steps, of all Gaussians of a slice; groups of which none moves
            are left so.
        aims: `(n, WIDTH)` what they should be.
        before: the slice.
        plan: of the stream.
    """
    moving = moves.any(1)
    values = moves[moving].reshape(-1)
    unread = np.empty(NUMBER * values.size + 64, np.uint32)
    now = np.zeros(_kernels().LANES + 1, np.uint64)
    known = (before[name][moving] for name in ("base", "motion", "active"))
    _kernels().moves((unread, now, begun(even())), values, *known, plan.integers, aims[moving])
    found = moves.copy()
    found[moving] = values.reshape(-1, WIDTH)
    return found


def created(symbols: Symbols, plan: Plan) -> SliceState:
    """The slice that symbols of a key frame make; a BitstreamError if a number is too large."""
    base = symbols["new"].reshape(-1, WIDTH)
    _check(base, symbols["rest"])
    return {
        "base": base,
        "rest": symbols["rest"].reshape(len(base), plan.rest_width),
        "motion": np.zeros_like(base),
        "active": np.zeros(len(base), np.int32),
    }


def change(symbols: Symbols, before: SliceState, plan: Plan) -> SliceState:
    """The slice that symbols of a later frame make of the one before.

    Raises:
        BitstreamError: a number is too large.
    """
    gates = symbols["gates"]
    moving = np.flatnonzero(gates == CHANGES)
    moves = symbols["moves"].reshape(-1, WIDTH)
    new = symbols["new"].reshape(-1, WIDTH)
    rest = symbols["rest"].reshape(len(moves) + len(new), plan.rest_width)
    tunes = rest[: len(moves)]
    found = {
        "base": before["base"].copy(),
        "rest": before["rest"],
        "motion": np.zeros_like(before["base"]),
        "active": np.zeros(len(gates), np.int32),
    }
    found["base"][moving] += moves
    if tunes.any():
        found["rest"] = before["rest"].copy()
        found["rest"][moving] += tunes
    found["motion"][moving] = moves
    found["active"][moving] = _changed(moves, tunes)
    _check(found["base"][moving], found["rest"][moving], new, rest)
    if len(new) or (gates == DIES).any():
        lives = gates != DIES
        born = {"base": new, "rest": rest[len(moves) :]}
        for name, values in found.items():
            none = np.zeros((len(new), *values.shape[1:]), np.int32)
            found[name] = np.concatenate([values[lives], born.get(name, none)])
    return found


def _changed(moves: IntArray, tunes: IntArray) -> IntArray:
    """Which groups of columns are not all 0, as bits; and 64, so that no row has none."""
    found = np.full(len(moves), 1 << len(GROUPS), np.int32)
    for group, (first, end) in enumerate(pairwise(GROUPS)):
        found |= moves[:, first:end].any(1).astype(np.int32) << group
    return found | tunes.any(1).astype(np.int32) << (len(GROUPS) - 1)


def _check(*arrays: IntArray) -> None:
    for array in arrays:
        if array.max(initial=0) >= BIN_MAX or array.min(initial=0) < -BIN_MAX:
            raise BitstreamError(f"slice: want numbers within +-{BIN_MAX}")


@final
class _Walks:
    """Codes symbols of a stream with one walk after the other, all with the same contexts."""

    def __init__(self, stream: AbstractStream, symbols: Symbols | None, contexts: Contexts) -> None:
        self._stream, self._symbols, self._contexts = stream, symbols, contexts

    def code(
        self, name: str, count: int, kernel: Callable[..., None], *known: Any, each: int = 0
    ) -> IntArray:
        given = None if self._symbols is None else self._symbols[name]
        model = _Walk(self._contexts, kernel, count, known, NUMBER * count + each * count)
        return self._stream.code_causal(given, model)


@final
class _Walk(AbstractCausalModel):
    """One walk over so many symbols; `known` are the kernel's other arguments."""

    def __init__(
        self,
        contexts: Contexts,
        kernel: Callable[..., None],
        count: int,
        known: tuple[Any, ...],
        operations_max: int,
    ) -> None:
        self.count = count
        self._contexts, self._kernel, self._known = contexts, kernel, known
        self._operations_max = operations_max + 64

    def operations(self, symbols: IntArray) -> NDArray[np.uint32]:
        """See `AbstractCausalModel.operations`."""
        values = symbols.copy()
        data = np.empty(self._operations_max, np.uint32)
        now = np.zeros(_kernels().LANES + 1, np.uint64)
        self._kernel((data, now, self._contexts), values, *self._known)
        if (values != symbols).any():
            raise ValueError("symbols: these are none of a slice")
        return data[: now[_kernels().K]].copy()

    def decode(
        self, words: NDArray[np.uint16], at: int, states: NDArray[np.uint64], k: int
    ) -> tuple[IntArray, int, int]:
        """See `AbstractCausalModel.decode`."""
        values = np.zeros(self.count, np.int32)
        head = np.array([1, k, at, max(len(states), 1) - 1], np.uint64)
        now = np.concatenate([head, states])
        self._kernel((words.astype(np.uint32), now, self._contexts), values, *self._known)
        states[:] = now[_kernels().LANES :]
        return values, int(now[_kernels().AT]), int(now[_kernels().K])


def _kernels() -> ModuleType:
    from codec.models.gauss import walk  # numba takes half a second to import

    return walk

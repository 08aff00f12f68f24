"""The search for codewords, compiled. Import this module only where it is used: it loads numba."""

from __future__ import annotations

import numpy as np

from codec.entropy.kernels import compiled

__all__ = ["search"]


@compiled
def search(x, words, costs, levels, codes):  # type: ignore[no-untyped-def]
    """Fill `codes` with the k for which `costs[g, level, k] + x . words[g, :, k]` is least.

    Loops run over codewords, which lie side by side, and the minimum is folded from halves: both
    become vector instructions, where a running minimum would not.

    Args:
        x: `(G, P, d)` float32.
        words: `(G, d, K)` float32.
        costs: `(G, L, K)` float32.
        levels: `(G, P)` int64 in [0, L).
        codes: `(G, P)` int64.
    """
    groups, dimensions, count = words.shape
    row, fold = np.empty(count, np.float32), np.empty(count, np.float32)
    for g in range(groups):
        for p in range(x.shape[1]):
            own = costs[g, levels[g, p]]
            for k in range(count):
                row[k] = own[k]
            for j in range(dimensions):
                by, word = x[g, p, j], words[g, j]
                for k in range(count):
                    row[k] += by * word[k]
            left = count
            for k in range(count):
                fold[k] = row[k]
            while left > 1:
                if left % 2:
                    fold[0] = min(fold[0], fold[left - 1])
                left //= 2
                for k in range(left):
                    a, b = fold[k], fold[k + left]
                    fold[k] = a if a < b else b
            found = 0
            while row[found] != fold[0] and found < count - 1:
                found += 1
            codes[g, p] = found

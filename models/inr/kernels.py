"""The autoregressive network of latents and its coding with rANS, compiled. Knows arrays only.

All numbers of the network are integers held in float64. No sum reaches 2**53, so each is exact
in whatever order a processor adds, and fused multiplications change nothing; docs/format/inr.md has
the bounds. Import this module only where it is used: it loads numba.

    grid: (h, w) int32 latents
    told: (ceil(w / 2), ceil(h / 2), F) float64, features in 2**-12
    contexts: (S, 2) int64, rows and columns from a latent to those before it
    hidden: (2, I, I) float64 weights in 2**-8, the residual connection included; I = S + F
    hidden_bias: (2, I) float64 in 2**-20
    out: (2, 2, I) float64 weights in 2**-8: of mean and log scale; from last layer and inputs
    out_bias: (2,) float64 in 2**-20
    cdf, offsets, sizes: of `Tables` of 16 bits, 64 |phase| + scale
    words, at, states, k: as in `codec.entropy.kernels`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from codec.entropy.kernels import advance, compiled

__all__ = ["decode", "encode"]

LATENT_BITS = 12
TOP, LEFT, RIGHT = 3, 4, 3  # how far contexts reach

FREE = {"contract", "reassoc", "nsz"}  # with sums of integers below 2**53 this cannot be seen
U = np.uint64
ONE, U16, MASK16 = U(1), U(16), U(0xFFFF)
LATENT_HALF = 1 << (LATENT_BITS - 1)
NUMBER_SHIFT = 16 - LATENT_BITS


def _exact(function: Callable[..., Any]) -> Callable[..., Any]:
    return compiled(function, fastmath=FREE)


def _inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    return compiled(function, fastmath=FREE, inline="always")


@_inlined
def _layer(x, weights, bias, y):  # type: ignore[no-untyped-def]
    """Let y = relu(weights x + bias), in 2**-12."""
    for o in range(len(bias)):
        total = bias[o]
        for i in range(len(x)):
            total += weights[o, i] * x[i]
        y[o] = min(max(np.floor(total * 2.0**-8 + 0.5), 0.0), 2.0**31)


@_inlined
def _predict(x, hidden, hidden_bias, out, out_bias):  # type: ignore[no-untyped-def]
    """What inputs `x[0]` say: the integer nearest to the mean, its phase, the scale's index."""
    _layer(x[0], hidden[0], hidden_bias[0], x[1])
    _layer(x[1], hidden[1], hidden_bias[1], x[2])
    mean, scale = out_bias[0], out_bias[1]
    for o in range(x.shape[1]):
        mean += out[0, 0, o] * x[2, o] + out[0, 1, o] * x[0, o]
        scale += out[1, 0, o] * x[2, o] + out[1, 1, o] * x[0, o]
    fine = np.int64(min(max(np.floor(mean * 2.0**-15 + 0.5), -(2.0**16)), 2.0**16))
    index = np.int64(min(max(np.floor(scale * 2.0**-17 + 0.5) + 24.0, 0.0), 63.0))
    centre = (fine + 16) >> 5
    return centre, fine - (centre << 5), index


@_exact
def _begin(grid, contexts, out):  # type: ignore[no-untyped-def]
    """An empty plane around a grid, its columns, each context's way in it, the layers' inputs."""
    columns = LEFT + grid.shape[1] + RIGHT
    plane = np.zeros((TOP + grid.shape[0]) * columns)
    ways = contexts[:, 0] * columns + contexts[:, 1]
    return plane, columns, ways, np.zeros((3, out.shape[2]))


@_inlined
def _gather(x, plane, place, ways, told):  # type: ignore[no-untyped-def]
    for j in range(len(ways)):
        x[j] = plane[U(place) + U(ways[j])]
    for j in range(len(told)):
        x[len(ways) + j] = told[j]


@_exact
def encode(  # type: ignore[no-untyped-def]
    grid, told, contexts, hidden, hidden_bias, out, out_bias, cdf, offsets, sizes, ops
):
    """Fill `ops`, which has two places for each latent, from the front; returns how many."""
    plane, columns, ways, x = _begin(grid, contexts, out)
    k = 0
    for row in range(grid.shape[0]):
        for column in range(grid.shape[1]):
            place = (TOP + row) * columns + LEFT + column
            _gather(x[0], plane, place, ways, told[column >> 1, row >> 1])
            centre, phase, scale = _predict(x, hidden, hidden_bias, out, out_bias)
            t = (abs(phase) << 6) + scale
            value = np.int64(grid[row, column])
            distance = value - centre if phase >= 0 else centre - value
            entry = distance - offsets[t]
            escape = np.int64(sizes[t]) - 1
            outside = entry < 0 or entry >= escape
            entry = escape if outside else entry
            start = U(cdf[t, entry])
            ops[k] = np.uint32((start << U16) | (U(cdf[t, entry + 1]) - start))
            k += 1
            if outside:
                number = U(value + LATENT_HALF) << U(NUMBER_SHIFT)
                ops[k] = np.uint32((number << U16) | (ONE << U(NUMBER_SHIFT)))
                k += 1
            plane[place] = value * 4096.0
    return k


@_exact
def decode(  # type: ignore[no-untyped-def]
    words,
    at,
    states,
    k,
    grid,
    told,
    contexts,
    hidden,
    hidden_bias,
    out,
    out_bias,
    cdf,
    offsets,
    sizes,
):
    """Fill `grid`; returns the next place in `words` and the next k."""
    plane, columns, ways, x = _begin(grid, contexts, out)
    mask = U(len(states)) - ONE
    word = U(at)
    operation = U(k)
    for row in range(grid.shape[0]):
        for column in range(grid.shape[1]):
            place = (TOP + row) * columns + LEFT + column
            _gather(x[0], plane, place, ways, told[column >> 1, row >> 1])
            centre, phase, scale = _predict(x, hidden, hidden_bias, out, out_bias)
            t = (abs(phase) << 6) + scale
            lane = operation & mask
            state = states[lane]
            slot = state & MASK16
            # From the mean outwards; a table begins at 0 and ends at 2**16: no way leaves it.
            entry = -np.int64(offsets[t])
            while slot < U(cdf[t, entry]):
                entry -= 1
            while slot >= U(cdf[t, entry + 1]):
                entry += 1
            start = U(cdf[t, entry])
            freq = U(cdf[t, entry + 1]) - start
            states[lane], word = advance(state, start, freq, words, word)
            operation += ONE
            distance = entry + offsets[t]
            value = centre + distance if phase >= 0 else centre - distance
            if entry == sizes[t] - 1:
                lane = operation & mask
                state = states[lane]
                number = (state & MASK16) >> U(NUMBER_SHIFT)
                start = number << U(NUMBER_SHIFT)
                states[lane], word = advance(state, start, ONE << U(NUMBER_SHIFT), words, word)
                operation += ONE
                value = np.int64(number) - LATENT_HALF
            grid[row, column] = value
            plane[place] = value * 4096.0
    return word, operation

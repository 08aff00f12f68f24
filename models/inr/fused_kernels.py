"""The loops that fit a picture, compiled: gradients of the rate in one pass. Knows arrays only.

Work is done on blocks of `BLOCK` positions, small enough for the first cache, as matrices with a
row for each channel: flat arrays in which channel c is at `c * BLOCK`. Channels are a multiple of
four, what is missing being zero, because `_multiply` and `_correlate` take four by four of them.
Each function computes one part of the work, and any number of them may run at once. Import this
module only where it is used: it loads numba.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from codec.entropy.kernels import compiled
from codec.models.inr.network import LOG_SCALE_MAX, LOG_SCALE_MIN, PROBABILITY_MIN, REACH

__all__ = [
    "BLOCK",
    "Arm",
    "Hidden",
    "convolution",
    "convolution_back",
    "doubling",
    "doubling_back",
    "rate",
    "soft_rounding",
    "synthesis",
    "synthesis_back",
]

Floats: TypeAlias = npt.NDArray[np.float32]
Integers: TypeAlias = npt.NDArray[np.int64]

BLOCK = 256

# Sums may be taken in another order, or vectors would not help; infinities are respected.
FAST = {"contract", "reassoc", "nsz", "arcp"}

ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
LOG2_E, LN_2 = np.float32(math.log2(math.e)), np.float32(math.log(2))
MANTISSA = np.int32(23)
EXPONENT_BIAS = np.int32(127)
SQRT_HALF = np.int32(np.float32(math.sqrt(0.5)).view(np.int32))
SCALE_LOW, SCALE_HIGH = np.float32(LOG_SCALE_MIN), np.float32(LOG_SCALE_MAX)
FLOOR = np.float32(PROBABILITY_MIN)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Inlined wherever it is called.

    Of copies of one function, each optimised for its caller, a process that compiles runs whichever
    it has first, one that finds them compiled the caller's own: their sums would differ.
    """
    return compiled(function, fastmath=FAST, forceinline=True)


class Arm(NamedTuple):
    """The autoregressive network, or its gradients: layers with their identities folded in.

    Attributes:
        w0, b0, w1, b1: `(K, K)` and `(K,)`, K inputs.
        out, b_out: `(4, 2 K)` and `(4,)`: from the hidden layer, then from the context, to mean and
            logarithm of the scale.
    """

    w0: Floats
    b0: Floats
    w1: Floats
    b1: Floats
    out: Floats
    b_out: Floats


class Hidden(NamedTuple):
    """The pointwise layers of the synthesis, or their gradients.

    Attributes:
        weight, bias: `(K, 8)` and `(K,)`, K channels of the hidden layer.
        out, b_out: `(4, K + 8)` and `(4,)`: from the hidden layer, then from the latents.
    """

    weight: Floats
    bias: Floats
    out: Floats
    b_out: Floats


@_compiled
def rate(  # type: ignore[no-untyped-def]
    grid, stride, first, last, offsets, told, arm, learn, grid_grad, told_grad, arm_grad
):
    """Bits of the latents at `first` to `last`, whole rows; with `learn` the gradients are added.

    `grid` is flat: row by row, each with `REACH` zeros in front, after `REACH` rows of zeros; and
    `BLOCK` longer than that. A row takes `stride` elements; the contexts of a latent are `offsets`
    away. `grid_grad` is the part of it from `-min(offsets)` before `first` on, also `BLOCK` longer.
    `told` are features, `(F, ceil(h / 2), ceil(w / 2))`, each of two by two latents; in `told_grad`
    only the rows of these latents are touched.
    """
    neighbours, channels = len(offsets), len(arm.b0)
    halo = -offsets.min()
    size = channels * BLOCK
    # The hidden layer and the context are neighbours in memory: the last layer sees both.
    seen = np.zeros(2 * size, np.float32)
    seen_grad = np.empty(2 * size, np.float32)
    hidden = np.empty(size, np.float32)
    hidden_grad = np.empty(size, np.float32)
    out = np.empty(4 * BLOCK, np.float32)
    valid = np.empty(BLOCK, np.float32)
    last_hidden, context = seen[:size], seen[size:]
    last_grad, context_grad = seen_grad[:size], seen_grad[size:]
    w0_t, w1_t, out_t = arm.w0.T.copy(), arm.w1.T.copy(), arm.out.T.copy()
    total = 0.0
    for at in range(first, last, BLOCK):
        for c in range(neighbours):
            row, source = context[c * BLOCK : (c + 1) * BLOCK], grid[at + offsets[c] :]
            for n in range(BLOCK):
                row[n] = source[n]
        _repeat(told, at, min(last, at + BLOCK), stride, context[neighbours * BLOCK :], valid)

        _layer(arm.w0, arm.b0, context, hidden)
        _relu(hidden)
        _layer(arm.w1, arm.b1, hidden, last_hidden)
        _relu(last_hidden)
        _layer(arm.out, arm.b_out, seen, out)
        back = halo + at - first
        total += _laplace(grid[at : at + BLOCK], valid, out, grid_grad[back : back + BLOCK])
        if not learn:
            continue

        _learn_layer(out, seen, arm_grad.out, arm_grad.b_out)
        seen_grad[:] = 0
        _multiply(out_t, out, seen_grad)
        _relu_back(last_hidden, last_grad)
        _learn_layer(last_grad, hidden, arm_grad.w1, arm_grad.b1)
        hidden_grad[:] = 0
        _multiply(w1_t, last_grad, hidden_grad)
        _relu_back(hidden, hidden_grad)
        _learn_layer(hidden_grad, context, arm_grad.w0, arm_grad.b0)
        _multiply(w0_t, hidden_grad, context_grad)

        for c in range(neighbours):
            place = grid_grad[back + offsets[c] : back + offsets[c] + BLOCK]
            for n in range(BLOCK):
                place[n] += context_grad[c * BLOCK + n]
        _gather(context_grad[neighbours * BLOCK :], at, min(last, at + BLOCK), stride, told_grad)
    return total


@_compiled
def synthesis(x, first, last, net, out):  # type: ignore[no-untyped-def]
    """Set `out` `(3, N)` from `first` to `last`, of the latents `x` `(7, N)`."""
    size = len(net.bias) * BLOCK
    seen = np.zeros(net.out.shape[1] * BLOCK, np.float32)
    hidden, latents = seen[:size], seen[size:]
    found = np.empty(4 * BLOCK, np.float32)
    for at in range(first, last, BLOCK):
        _load(x, at, last, latents)
        _layer(net.weight, net.bias, latents, hidden)
        _relu(hidden)
        _layer(net.out, net.b_out, seen, found)
        _store(found, at, last, out)


@_compiled
def synthesis_back(out_grad, x, first, last, net, x_grad, net_grad):  # type: ignore[no-untyped-def]
    """Set `x_grad` from `first` to `last`, and add to `net_grad`; what is hidden is found anew."""
    size = len(net.bias) * BLOCK
    seen = np.zeros(net.out.shape[1] * BLOCK, np.float32)
    seen_grad = np.empty(net.out.shape[1] * BLOCK, np.float32)
    hidden, latents = seen[:size], seen[size:]
    hidden_grad, latents_grad = seen_grad[:size], seen_grad[size:]
    found_grad = np.zeros(4 * BLOCK, np.float32)
    weight_t, out_t = net.weight.T.copy(), net.out.T.copy()
    for at in range(first, last, BLOCK):
        _load(x, at, last, latents)
        _load(out_grad, at, last, found_grad)
        _layer(net.weight, net.bias, latents, hidden)
        _relu(hidden)
        _learn_layer(found_grad, seen, net_grad.out, net_grad.b_out)
        seen_grad[:] = 0
        _multiply(out_t, found_grad, seen_grad)
        _relu_back(hidden, hidden_grad)
        _learn_layer(hidden_grad, latents, net_grad.weight, net_grad.bias)
        _multiply(weight_t, hidden_grad, latents_grad)
        _store(latents_grad, at, last, x_grad)


@_compiled
def convolution(x, first, last, offsets, weight, bias, out):  # type: ignore[no-untyped-def]
    """Set `out` `(O, N)` from `first` to `last` to sums of what is at `offsets` in `x` `(I, N)`.

    `weight` is for each channel of x and each offset in turn.
    """
    block = np.zeros(weight.shape[1] * BLOCK, np.float32)
    found = np.empty(weight.shape[0] * BLOCK, np.float32)
    taps = len(offsets)
    for at in range(first, last, BLOCK):
        for tap in range(taps):
            place = at + offsets[tap]
            for c in range(len(x)):
                _load(x[c : c + 1], place, last + offsets[tap], block[(c * taps + tap) * BLOCK :])
        _layer(weight, bias, block, found)
        _store(found, at, last, out)


@_compiled
def convolution_back(  # type: ignore[no-untyped-def]
    out_grad, x, first, last, offsets, weight, x_grad, weight_grad, bias_grad
):
    """Add to the gradients; `x_grad` is the part from `min(offsets)` before `first` on."""
    block = np.zeros(weight.shape[1] * BLOCK, np.float32)
    block_grad = np.empty(weight.shape[1] * BLOCK, np.float32)
    found_grad = np.zeros(weight.shape[0] * BLOCK, np.float32)
    weight_t = weight.T.copy()
    taps, halo = len(offsets), -offsets.min()
    for at in range(first, last, BLOCK):
        _load(out_grad, at, last, found_grad)
        for tap in range(taps):
            place = at + offsets[tap]
            for c in range(len(x)):
                _load(x[c : c + 1], place, last + offsets[tap], block[(c * taps + tap) * BLOCK :])
        _learn_layer(found_grad, block, weight_grad, bias_grad)
        block_grad[:] = 0
        _multiply(weight_t, found_grad, block_grad)
        size = min(BLOCK, last - at)
        for tap in range(taps):
            place = halo + at - first + offsets[tap]
            for c in range(len(x)):
                target = x_grad[c, place : place + size]
                source = block_grad[(c * taps + tap) * BLOCK :]
                for n in range(size):
                    target[n] += source[n]


@_compiled
def doubling(x, first, last, taps, out):  # type: ignore[no-untyped-def]
    """Set rows `first` to `last` of `out` `(2 h, 2 w)`, of `x` with a border of two elements.

    A row or column is made of four: taps a c d b of those from two before, or b d c a.
    """
    a, b, c, d = taps[0], taps[1], taps[2], taps[3]
    high = np.empty(x.shape[1], np.float32)
    for row in range(first, last):
        _double_row(x, row, taps, high)
        target = out[row]
        for j in range(len(target) // 2):
            h1, h2, h3 = high[j + 1], high[j + 2], high[j + 3]
            target[2 * j] = a * high[j] + c * h1 + d * h2 + b * h3
            target[2 * j + 1] = b * h1 + d * h2 + c * h3 + a * high[j + 4]


@_compiled
def doubling_back(out_grad, x, first, last, taps, x_grad, taps_grad):  # type: ignore[no-untyped-def]
    """Add to the gradients; `x_grad` is the part from row `first / 2` on, and `first` is even."""
    a, b, c, d = taps[0], taps[1], taps[2], taps[3]
    width = x.shape[1] - 4
    high = np.empty(width + 4, np.float32)
    high_grad = np.empty(width + 4, np.float32)
    # Columns with zeros around them, so that what a tap reaches needs no condition.
    even, odd = np.zeros(width + 8, np.float32), np.zeros(width + 8, np.float32)
    for row in range(first, last):
        _double_row(x, row, taps, high)
        source = out_grad[row]
        for j in range(width):
            even[j + 4] = source[2 * j]
            odd[j + 4] = source[2 * j + 1]

        by_a = by_b = by_c = by_d = ZERO
        for j in range(width):
            e, o = even[j + 4], odd[j + 4]
            by_a += e * high[j] + o * high[j + 4]
            by_b += e * high[j + 3] + o * high[j + 1]
            by_c += e * high[j + 1] + o * high[j + 3]
            by_d += e * high[j + 2] + o * high[j + 2]
        for j in range(width + 4):
            outer = a * (even[j + 4] + odd[j]) + b * (even[j + 1] + odd[j + 3])
            high_grad[j] = outer + c * (even[j + 3] + odd[j + 1]) + d * (even[j + 2] + odd[j + 2])

        begin = (row + 1) >> 1
        local = begin - (first >> 1)
        x0, x1, x2, x3 = x[begin], x[begin + 1], x[begin + 2], x[begin + 3]
        g0, g1, g2, g3 = x_grad[local], x_grad[local + 1], x_grad[local + 2], x_grad[local + 3]
        k0, k1, k2, k3 = (b, d, c, a) if row & 1 else (a, c, d, b)
        by_0 = by_1 = by_2 = by_3 = ZERO
        for j in range(width + 4):
            g = high_grad[j]
            by_0, by_1, by_2, by_3 = (
                by_0 + g * x0[j],
                by_1 + g * x1[j],
                by_2 + g * x2[j],
                by_3 + g * x3[j],
            )
            g0[j] += k0 * g
            g1[j] += k1 * g
            g2[j] += k2 * g
            g3[j] += k3 * g
        down = (by_3, by_0, by_2, by_1) if row & 1 else (by_0, by_3, by_1, by_2)
        for tap, across in enumerate((by_a, by_b, by_c, by_d)):
            taps_grad[tap] += across + down[tap]


@_compiled
def _double_row(x, row, taps, high):  # type: ignore[no-untyped-def]
    """Row `row` of twice as many as `x` has."""
    a, b, c, d = taps[0], taps[1], taps[2], taps[3]
    k0, k1, k2, k3 = (b, d, c, a) if row & 1 else (a, c, d, b)
    begin = (row + 1) >> 1
    x0, x1, x2, x3 = x[begin], x[begin + 1], x[begin + 2], x[begin + 3]
    for j in range(len(high)):
        high[j] = k0 * x0[j] + k1 * x1[j] + k2 * x2[j] + k3 * x3[j]


@_compiled
def soft_rounding(y, noise, first, last, temperature, out, slope):  # type: ignore[no-untyped-def]
    """Set `out` from `first` to `last` to sr(sr(y) + noise), and `slope` to its derivative.

    With D from -1/2 to 1/2 what x is above the middle between two integers, sr(x) is that middle
    plus tanh(D / t) / (2 tanh(1 / 2t)), where t is the temperature.
    """
    t = np.float32(temperature)
    gain = np.float32(0.5 / math.tanh(0.5 / temperature))
    for i in range(first, last):
        once, by_y = _soft_round(y[i], t, gain)
        out[i], by_once = _soft_round(once + noise[i], t, gain)
        slope[i] = by_y * by_once


@_compiled
def _soft_round(x, t, gain):  # type: ignore[no-untyped-def]
    """Sr(x) and its derivative."""
    middle = np.floor(x) + HALF
    z = (x - middle) / t
    e = _exp(np.float32(-2) * abs(z))
    tanh = (ONE - e) / (ONE + e)
    slope = np.float32(4) * e / ((ONE + e) * (ONE + e))
    return middle + gain * (tanh if z > ZERO else -tanh), gain / t * slope


@_compiled
def _load(plane, at, last, block):  # type: ignore[no-untyped-def]
    """Copy `plane` `(C, N)` at `at` into a block, zeros from `last` on."""
    size = min(BLOCK, last - at)
    for c in range(len(plane)):
        row, source = block[c * BLOCK : (c + 1) * BLOCK], plane[c, at : at + size]
        for n in range(size):
            row[n] = source[n]
        row[size:] = 0


@_compiled
def _store(block, at, last, plane):  # type: ignore[no-untyped-def]
    """The reverse of `_load`."""
    size = min(BLOCK, last - at)
    for c in range(len(plane)):
        row, target = block[c * BLOCK : (c + 1) * BLOCK], plane[c, at : at + size]
        for n in range(size):
            target[n] = row[n]


@_compiled
def _laplace(latents, valid, out, latents_grad):  # type: ignore[no-untyped-def]
    """Bits of a block; its gradients are added to `latents_grad` and replace `out`.

    With e1 = _exp(-r |1/2 - a|) and e2 = _exp(-r (1/2 + a)), where r is the rate and a the distance
    from the mean, the probability is 1 - (e1 + e2) / 2 inside half a step, and (e1 - e2) / 2
    outside; both have the same derivatives.
    """
    total = ZERO
    for n in range(BLOCK):
        raw = out[BLOCK + n]
        r = _exp(-min(max(raw, SCALE_LOW), SCALE_HIGH))
        signed = latents[n] - out[n]
        a = abs(signed)
        e1, e2 = _exp(-r * abs(HALF - a)), _exp(-r * (HALF + a))
        p = ONE - HALF * (e1 + e2) if a < HALF else HALF * (e1 - e2)
        total -= valid[n] * _log2(max(p, FLOOR))
        # Of bits with respect to p.
        slope = -valid[n] / (LN_2 * p) if p >= FLOOR else ZERO
        by_a = -HALF * r * (e1 - e2) * slope
        by_r = HALF * ((HALF - a) * e1 + (HALF + a) * e2) * slope
        by_latent = by_a if signed > ZERO else -by_a
        latents_grad[n] += by_latent
        out[n] = -by_latent
        out[BLOCK + n] = -r * by_r if SCALE_LOW <= raw <= SCALE_HIGH else ZERO
        out[2 * BLOCK + n] = ZERO
        out[3 * BLOCK + n] = ZERO
    return total


@_compiled
def _repeat(told, at, end, stride, out, valid):  # type: ignore[no-untyped-def]
    """Features of the positions from `at` to `end`, and which of them are latents: 1, else 0."""
    valid[:] = 0
    for f in range(len(told)):
        out[f * BLOCK : (f + 1) * BLOCK] = 0
    for row in range(at // stride, (end - 1) // stride + 1):
        start = row * stride + REACH
        begin = max(at, start)
        valid[begin - at : max(begin, min(end, start - REACH + stride)) - at] = 1
        for f in range(len(told)):
            source = told[f, (row - REACH) >> 1]
            for place in range(begin, min(end, start - REACH + stride)):
                out[f * BLOCK + place - at] = source[(place - start) >> 1]


@_compiled
def _gather(out_grad, at, end, stride, told_grad):  # type: ignore[no-untyped-def]
    """The gradient of `_repeat`, added to `told_grad`."""
    for row in range(at // stride, (end - 1) // stride + 1):
        start = row * stride + REACH
        for f in range(len(told_grad)):
            target = told_grad[f, (row - REACH) >> 1]
            for place in range(max(at, start), min(end, start - REACH + stride)):
                target[(place - start) >> 1] += out_grad[f * BLOCK + place - at]


@_compiled
def _layer(weight, bias, x, out):  # type: ignore[no-untyped-def]
    """Set `out` to `weight` times `x`, plus `bias`."""
    for o in range(len(bias)):
        out[o * BLOCK : (o + 1) * BLOCK] = bias[o]
    _multiply(weight, x, out)


@_compiled
def _learn_layer(out_grad, x, weight_grad, bias_grad):  # type: ignore[no-untyped-def]
    """Add the gradients of a layer's parameters."""
    _correlate(out_grad, x, weight_grad)
    for o in range(len(bias_grad)):
        row = out_grad[o * BLOCK : (o + 1) * BLOCK]
        total = ZERO
        for n in range(BLOCK):
            total += row[n]
        bias_grad[o] += total


@_compiled
def _relu(x):  # type: ignore[no-untyped-def]
    """In place."""
    for n in range(len(x)):
        x[n] = max(x[n], ZERO)


@_compiled
def _relu_back(y, grad):  # type: ignore[no-untyped-def]
    """Zero the gradient where relu gave zero, in place."""
    for n in range(len(y)):
        grad[n] = grad[n] if y[n] > ZERO else ZERO


@_compiled
def _multiply(weight, x, out):  # type: ignore[no-untyped-def]
    """Add `weight` `(O, I)` times `x` `(I, BLOCK)` to `out`; O and I are multiples of four."""
    for o in range(0, weight.shape[0], 4):
        y = out[o * BLOCK : (o + 4) * BLOCK]
        for i in range(0, weight.shape[1], 4):
            v = x[i * BLOCK : (i + 4) * BLOCK]
            a0, a1, a2, a3 = weight[o, i], weight[o, i + 1], weight[o, i + 2], weight[o, i + 3]
            o1, o2, o3 = o + 1, o + 2, o + 3
            b0, b1, b2, b3 = weight[o1, i], weight[o1, i + 1], weight[o1, i + 2], weight[o1, i + 3]
            c0, c1, c2, c3 = weight[o2, i], weight[o2, i + 1], weight[o2, i + 2], weight[o2, i + 3]
            d0, d1, d2, d3 = weight[o3, i], weight[o3, i + 1], weight[o3, i + 2], weight[o3, i + 3]
            for n in range(BLOCK):
                v0, v1, v2, v3 = v[n], v[BLOCK + n], v[2 * BLOCK + n], v[3 * BLOCK + n]
                y[n] += a0 * v0 + a1 * v1 + a2 * v2 + a3 * v3
                y[BLOCK + n] += b0 * v0 + b1 * v1 + b2 * v2 + b3 * v3
                y[2 * BLOCK + n] += c0 * v0 + c1 * v1 + c2 * v2 + c3 * v3
                y[3 * BLOCK + n] += d0 * v0 + d1 * v1 + d2 * v2 + d3 * v3


@_compiled
def _correlate(y, x, weight):  # type: ignore[no-untyped-def]
    """Add `y` `(O, BLOCK)` times the transpose of `x` `(I, BLOCK)` to `weight`, as `_multiply`.

    Two rows at a time: what four of them add up would not fit the 16 registers of AVX2.
    """
    for o in range(0, weight.shape[0], 2):
        u = y[o * BLOCK : (o + 2) * BLOCK]
        for i in range(0, weight.shape[1], 4):
            v = x[i * BLOCK : (i + 4) * BLOCK]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = ZERO
            for n in range(BLOCK):
                v0, v1, v2, v3 = v[n], v[BLOCK + n], v[2 * BLOCK + n], v[3 * BLOCK + n]
                u0, u1 = u[n], u[BLOCK + n]
                a0, a1, a2, a3 = a0 + u0 * v0, a1 + u0 * v1, a2 + u0 * v2, a3 + u0 * v3
                b0, b1, b2, b3 = b0 + u1 * v0, b1 + u1 * v1, b2 + u1 * v2, b3 + u1 * v3
            found = ((a0, a1, a2, a3), (b0, b1, b2, b3))
            for row in range(2):
                for column in range(4):
                    weight[o + row, i + column] += found[row][column]


@_compiled
def _exp(x):  # type: ignore[no-untyped-def]
    """For -87 and more, which smaller numbers count as, to 88; in polynomials, which vectorise."""
    x = max(x, np.float32(-87.0))
    power = np.floor(x * LOG2_E + HALF)
    z = x - power * LN_2
    found = ONE + z / np.float32(7)
    for k in (6, 5, 4, 3, 2, 1):
        found = ONE + z / np.float32(k) * found
    return found * np.int32((np.int32(power) + EXPONENT_BIAS) << MANTISSA).view(np.float32)


@_compiled
def _log2(x):  # type: ignore[no-untyped-def]
    """Of a normal positive number: 2 atanh((m - 1) / (m + 1)) for its mantissa m about 1."""
    bits = np.float32(x).view(np.int32)
    power = np.int32(np.int32(bits - SQRT_HALF) >> MANTISSA)
    m = np.int32(bits - np.int32(power << MANTISSA)).view(np.float32)
    s = (m - ONE) / (m + ONE)
    square = s * s
    series = ZERO
    for k in (9, 7, 5, 3, 1):
        series = series * square + ONE / np.float32(k)
    return np.float32(power) + np.float32(2) * LOG2_E * s * series

"""Section 3 of docs/format/nerv.md as plain numpy, in double precision: slow and simple."""

import numpy as np

__all__ = ["draw"]


def draw(weights, variant, strides, embedding, t, frames):
    """One frame `(3, H', W')` before what is too large is cut off.

    `weights` by name; `embedding` is `(E, h, w)`, or for variants without any the grid `(h, w)`.
    """
    boost = variant in ("boost", "light")
    residual, skip = variant not in ("nerv", "light"), variant in ("nerv++", "boost")
    active = np.sin if boost else silu
    k = np.arange(40)
    angles = np.pi * 1.25**k * t / frames
    times = np.concatenate([np.sin(angles), np.cos(angles)])
    if boost:
        x = conv(embedding, weights, "stem")
        m = np.sin(linear(times, weights, "time"))
    else:
        x = linear(times, weights, "stem")
    v, g = np.split(x, 2)
    x = v * np.sin(g) if boost else v * gelu(g)
    if not boost:
        x = linear(x, weights, "draw").reshape(-1, *embedding)
    for i, s in enumerate(strides):
        if residual:
            r = conv(x, weights, f"{i}.project")
            x = block(r, weights, f"{i}.before", active)
        if boost:
            scale, shift = np.split(weights[f"{i}.affine.weight"] @ m, 2)
            x = x * (1 + scale[:, None, None]) + shift[:, None, None]
        x = active(shuffle(conv(x, weights, f"{i}.up"), s))
        if residual:
            x = block(x, weights, f"{i}.behind", active)
        if skip:
            x = x + enlarged(enlarged(r, s, 1), s, 2)
    return conv(x, weights, "head") + 0.5


def block(x, weights, name, active):
    weight, bias = weights[f"{name}.space.weight"], weights[f"{name}.space.bias"]
    inner = np.stack([correlate(x[c : c + 1], weight[c : c + 1]) + bias[c] for c in range(len(x))])[
        :, 0
    ]
    return x + conv(active(conv(inner, weights, f"{name}.mix0")), weights, f"{name}.mix1")


def conv(x, weights, name):
    return correlate(x, weights[f"{name}.weight"]) + weights[f"{name}.bias"][:, None, None]


def correlate(x, weight):
    """`(C, h, w)` with `(O, C, k, k)`, zeros outside."""
    k = weight.shape[2]
    h, w = x.shape[1:]
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    found = np.zeros((len(weight), h, w))
    for i in range(k):
        for j in range(k):
            found += np.einsum("oc,chw->ohw", weight[:, :, i, j], padded[:, i : i + h, j : j + w])
    return found


def linear(x, weights, name):
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def shuffle(x, s):
    found = np.zeros((len(x) // s**2, x.shape[1] * s, x.shape[2] * s))
    for y in range(s):
        for z in range(s):
            found[:, y::s, z::s] = x[y * s + z :: s * s]
    return found


def enlarged(x, s, axis):
    """s times as long, linear between the centres of samples, edges repeated."""
    count = x.shape[axis]
    at = np.clip((np.arange(s * count) + 0.5) / s - 0.5, 0, count - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, count - 1)
    shape = [1, 1, 1]
    shape[axis] = -1
    part = (at - low).reshape(shape)
    return np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

"""`network`'s functions for fitting on CPUs: the same values and gradients, several times as fast.

Each is one pass over blocks that stay in the first cache, forwards and backwards at once where the
value is a sum, so that what lies between (twenty contexts, forty-eight channels for each latent) is
never written to memory. Float32 on the CPU only. Work is cut the same way whatever the number of
threads, `torch.get_num_threads()` at most, and parts are added up in order: the results are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import starmap
from types import ModuleType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from codec.models.inr.layout import CONTEXTS, GRIDS, IFCE_LEVELS
from codec.models.inr.network import REACH, Parameters, aligned

__all__ = ["bits", "synthesise"]

Floats: TypeAlias = npt.NDArray[np.float32]
Integers: TypeAlias = npt.NDArray[np.int64]
R = TypeVar("R")

# Elements of a plane that one call of a kernel works on, about: some hundred microseconds.
PART = 1 << 14


def bits(grids: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """Bits of each picture's latents, `(B,)`: `network.bits`, which can be derived once.

    Args:
        grids: in the order of `GRIDS`, `(B, h, w)` float32 each, rounded or a stand-in for it.
        parameters: float32.
    """
    features = parameters["ifce.0.weight"].shape[1]
    maps = []
    for number, (place, grid) in enumerate(zip(GRIDS, grids, strict=True)):
        if place.hyper or place.level >= IFCE_LEVELS:
            batch, height, width = grid.shape
            maps.append(grid.new_zeros(batch, features, -(-height // 2), -(-width // 2)))
        else:
            coarse = aligned(grids[:number], place.level)
            told = _pointwise(coarse.flatten(2), parameters, f"ifce.{place.level}")
            maps.append(told.reshape(-1, features, *coarse.shape[2:]))
    neighbours = parameters["arm.0.weight"].shape[2] - features
    tensors = (*_arm(parameters), *maps, *grids)
    learn = torch.is_grad_enabled() and any(each.requires_grad for each in tensors)
    found: Tensor = _Rate.apply(neighbours, learn, *tensors)  # type: ignore[no-untyped-call]
    return found


def _arm(parameters: Parameters) -> list[Tensor]:
    """The tensors of `fused_kernels.Arm` for each picture, differentiable."""
    inputs = parameters["arm.0.weight"].shape[2]
    more = -inputs % 4
    found = []
    for layer in ("arm.0", "arm.1"):
        weight = parameters[f"{layer}.weight"] + torch.eye(inputs)
        found.append(functional.pad(weight, (0, more, 0, more)))
        found.append(functional.pad(parameters[f"{layer}.bias"], (0, more)))
    parts = [parameters["arm.out.weight"], parameters["arm.skip.weight"]]
    found.append(torch.cat([functional.pad(part, (0, more, 0, 2)) for part in parts], dim=2))
    found.append(functional.pad(parameters["arm.out.bias"], (0, 2)))
    return found


def synthesise(stack: Tensor, parameters: Parameters) -> Tensor:
    """Upsampled latents to pixels, about [0, 1]: `network.synthesise`, which can be derived once.

    Args:
        stack: `(B, 7, H, W)` float32.
        parameters: float32.

    Returns:
        `(B, 3, H, W)`.
    """
    x: Tensor = _Hidden.apply(stack, *_hidden(parameters))  # type: ignore[no-untyped-call]
    layers = [name for name in parameters if name.startswith("syn.res") and "weight" in name]
    for number, name in enumerate(layers):
        # What the layer is added to is a tap more in its middle.
        weight = parameters[name] + torch.eye(3)[:, :, None, None] * _MIDDLE
        weight = functional.pad(weight.flatten(2), (0, 1, 0, 1))
        bias = functional.pad(parameters[name.replace("weight", "bias")], (0, 1))
        padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        x = _Convolution.apply(padded, weight, bias)  # type: ignore[no-untyped-call]
        if number < len(layers) - 1:
            x = x.relu()
    return x


_MIDDLE = functional.pad(torch.ones(1, 1), (1, 1, 1, 1))


def _hidden(parameters: Parameters) -> list[Tensor]:
    """The tensors of `fused_kernels.Hidden` for each picture, differentiable."""
    out, skip = parameters["syn.out.weight"], parameters["syn.skip.weight"]
    return [
        functional.pad(parameters["syn.in.weight"], (0, 1)),
        parameters["syn.in.bias"],
        functional.pad(torch.cat([out, skip], dim=2), (0, 1, 0, 1)),
        functional.pad(parameters["syn.out.bias"], (0, 1)),
    ]


class _Hidden(torch.autograd.Function):
    """`(B, 7, H, W)` and the tensors of `fused_kernels.Hidden` -> `(B, 3, H, W)`."""

    @staticmethod
    def forward(ctx: Any, stack: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(stack, *tensors)
        kernels = _kernels()
        x, *arrays = _arrays(stack.flatten(2), *tensors)
        found = np.empty((len(x), 3, x.shape[2]), np.float32)

        def one(b: int, first: int, last: int) -> None:
            net = kernels.Hidden(*(each[b] for each in arrays))
            kernels.synthesis(x[b], first, last, net, found[b])

        _all(one, [(b, *part) for b in range(len(x)) for part in _parts(x.shape[2], 1)])
        return torch.from_numpy(found).view(-1, 3, *stack.shape[2:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        stack, *tensors = ctx.saved_tensors
        kernels = _kernels()
        out_grad, x, *arrays = _arrays(grad.flatten(2), stack.flatten(2), *tensors)
        x_grad = np.empty_like(x)
        grads = [np.zeros_like(each) for each in arrays]

        def one(b: int, first: int, last: int) -> Any:
            net = kernels.Hidden(*(each[b] for each in arrays))
            own = kernels.Hidden(*(np.zeros_like(each) for each in net))
            kernels.synthesis_back(out_grad[b], x[b], first, last, net, x_grad[b], own)
            return own

        parts = [(b, *part) for b in range(len(x)) for part in _parts(x.shape[2], 1)]
        for (b, *_), own in zip(parts, _each(one, parts), strict=True):
            _add([each[b] for each in grads], own)
        return torch.from_numpy(x_grad).view_as(stack), *(torch.from_numpy(each) for each in grads)


class _Convolution(torch.autograd.Function):
    """`(B, C, H + 2, W + 2)`, weights `(B, 4, 28)`, biases `(B, 4)` -> `(B, 3, H, W)`."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(padded, weight, bias)
        kernels = _kernels()
        x, weights, biases = _arrays(padded.flatten(2), weight, bias)
        offsets, parts = _taps(padded)
        found = np.empty_like(x)

        def one(b: int, first: int, last: int) -> None:
            kernels.convolution(x[b], first, last, offsets, weights[b], biases[b], found[b])

        _all(one, parts)
        return torch.from_numpy(found).view_as(padded)[:, :, 1:-1, 1:-1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        padded, weight, bias = ctx.saved_tensors
        kernels = _kernels()
        whole = functional.pad(grad, (1, 1, 1, 1))
        out_grad, x, weights, biases = _arrays(whole.flatten(2), padded.flatten(2), weight, bias)
        offsets, parts = _taps(padded)
        halo = offsets.max()
        x_grad, weight_grad, bias_grad = (np.zeros_like(each) for each in (x, weights, biases))

        def one(b: int, first: int, last: int) -> list[Floats]:
            own = np.zeros((len(x[b]), last - first + 2 * halo), np.float32)
            learned = np.zeros_like(weights[b]), np.zeros_like(biases[b])
            kernels.convolution_back(
                out_grad[b], x[b], first, last, offsets, weights[b], own, *learned
            )
            return [own, *learned]

        for (b, first, last), own in zip(parts, _each(one, parts), strict=True):
            _add([x_grad[b, :, first - halo : last + halo], weight_grad[b], bias_grad[b]], own)
        x_grad = x_grad.reshape(padded.shape)
        return tuple(torch.from_numpy(each) for each in (x_grad, weight_grad, bias_grad))


def _taps(padded: Tensor) -> tuple[Integers, list[tuple[int, int, int]]]:
    """How far a pixel's neighbours are in a plane with borders of one; its parts, for each picture.

    A part also has the borders between its rows, of which what is found is of no use.
    """
    batch, _, height, stride = padded.shape
    offsets = np.array([row * stride + column for row in (-1, 0, 1) for column in (-1, 0, 1)])
    rows = _parts(height - 2, stride)
    parts = [(start * stride + stride + 1, stop * stride + stride - 1) for start, stop in rows]
    return offsets, [(b, *part) for b in range(batch) for part in parts]


def _pointwise(x: Tensor, parameters: Parameters, layer: str) -> Tensor:
    """A layer over `(B, C_in, N)`."""
    weight, bias = parameters[f"{layer}.weight"], parameters[f"{layer}.bias"]
    rows, columns = (-size % 4 for size in weight.shape[1:])
    weight, bias = functional.pad(weight, (0, columns, 0, rows)), functional.pad(bias, (0, rows))
    outputs = parameters[f"{layer}.bias"].shape[1]
    found: Tensor = _Pointwise.apply(x, weight, bias, outputs)  # type: ignore[no-untyped-call]
    return found


class _Pointwise(torch.autograd.Function):
    """`(B, I, N)`, weights and biases of multiples of four -> `(B, outputs, N)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, outputs: int) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        inputs, weights, biases = _arrays(x, weight, bias)
        found = np.empty((len(x), outputs, x.shape[2]), np.float32)

        def one(b: int, first: int, last: int) -> None:
            _kernels().pointwise(inputs[b], first, last, weights[b], biases[b], found[b])

        _all(one, [(b, *part) for b in range(len(x)) for part in _parts(x.shape[2], 1)])
        return torch.from_numpy(found)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        out_grad, inputs, weights, biases = _arrays(grad, *ctx.saved_tensors)
        grads = [np.zeros_like(each) for each in (inputs, weights, biases)]
        input_grad, *learned_grads = grads

        def one(b: int, first: int, last: int) -> list[Floats]:
            own = [np.zeros_like(each[b]) for each in learned_grads]
            _kernels().pointwise_back(
                out_grad[b], inputs[b], first, last, weights[b], input_grad[b], *own
            )
            return own

        parts = [(b, *part) for b in range(len(grad)) for part in _parts(grad.shape[2], 1)]
        for (b, *_), own in zip(parts, _each(one, parts), strict=True):
            _add([each[b] for each in learned_grads], own)
        return (*(torch.from_numpy(each) for each in grads), None)


class _Rate(torch.autograd.Function):
    """Six tensors of the network, features of ten grids, and the grids -> bits; B in front of all.

    The gradients are found with the value, and only scaled backwards.
    """

    @staticmethod
    def forward(ctx: Any, neighbours: int, learn: bool, *tensors: Tensor) -> Tensor:
        arrays = _arrays(*tensors)
        grads = [np.zeros_like(each) for each in arrays]
        totals = [
            _rate(neighbours, learn, [each[b] for each in arrays], [each[b] for each in grads])
            for b in range(len(arrays[0]))
        ]
        ctx.save_for_backward(*(torch.from_numpy(each) for each in grads))
        return torch.tensor(totals)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (grad.view(-1, *[1] * (each.ndim - 1)) * each for each in ctx.saved_tensors)
        return (None, None, *scaled)


def _rate(neighbours: int, learn: bool, arrays: Sequence[Floats], grads: Sequence[Floats]) -> float:
    """Bits of one picture; with `learn`, the gradients are added to `grads`."""
    kernels = _kernels()
    arm, arm_grad = kernels.Arm(*arrays[:6]), kernels.Arm(*grads[:6])
    told, told_grads = arrays[6 : 6 + len(GRIDS)], grads[6 : 6 + len(GRIDS)]
    grids, grid_grads = arrays[6 + len(GRIDS) :], grads[6 + len(GRIDS) :]

    # With zeros above, and in front of each row, which the end of the row before sees too, a grid
    # is a line in which a context is always as far away.
    strides = [grid.shape[1] + REACH for grid in grids]
    lines = [np.pad(grid, ((REACH, 0), (REACH, 0))).ravel() for grid in grids]
    lines = [np.append(line, np.zeros(kernels.BLOCK, np.float32)) for line in lines]
    line_grads = [np.zeros_like(line) for line in lines]
    offsets = [np.array([r * by + c for r, c in CONTEXTS[:neighbours]]) for by in strides]

    def one(number: int, first: int, last: int) -> tuple[float, Any, Floats]:
        halo = -offsets[number].min()
        own = kernels.Arm(*(np.zeros_like(each) for each in arm))
        line_grad = np.zeros(halo + last - first + kernels.BLOCK, np.float32)
        place = lines[number], strides[number], first, last, offsets[number]
        own_grads = line_grad, told_grads[number], own
        bits = kernels.rate(*place, told[number], arm, learn, *own_grads)
        return bits, own, line_grad[: halo + last - first]

    parts = [
        (number, (REACH + start) * stride, (REACH + stop) * stride)
        for number, (grid, stride) in enumerate(zip(grids, strides, strict=True))
        for start, stop in _parts(len(grid), stride)
    ]
    total = 0.0
    for (number, _, last), (bits, own, line_grad) in zip(parts, _each(one, parts), strict=True):
        total += bits
        _add(arm_grad, own)
        line_grads[number][last - len(line_grad) : last] += line_grad
    for grid_grad, line_grad, stride in zip(grid_grads, line_grads, strides, strict=True):
        grid_grad += line_grad[: -kernels.BLOCK].reshape(-1, stride)[REACH:, REACH:]
    return total


def _arrays(*tensors: Tensor) -> list[Floats]:
    return [each.detach().contiguous().numpy() for each in tensors]


def _add(wholes: Sequence[Floats], parts: Sequence[Floats]) -> None:
    for whole, part in zip(wholes, parts, strict=True):
        whole += part


def _parts(rows: int, stride: int) -> list[tuple[int, int]]:
    """Rows in parts of about `PART` elements; each begins with an even one."""
    step = max(PART // stride & ~1, 2)
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def _each(work: Callable[..., R], parts: Sequence[tuple[int, ...]]) -> Iterator[R]:
    """What `work` makes of each part, in order, by as many threads as torch would use.

    They end with the work: the process may fork afterwards, and any number of callers may be at it.
    """
    threads = min(torch.get_num_threads(), len(parts))
    if threads == 1:
        yield from starmap(work, parts)
    else:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(work, *zip(*parts, strict=True))


def _all(work: Callable[..., None], parts: Sequence[tuple[int, ...]]) -> None:
    for _ in _each(work, parts):
        pass


def _kernels() -> ModuleType:
    from codec.models.inr import fused_kernels  # numba takes half a second to import

    return fused_kernels

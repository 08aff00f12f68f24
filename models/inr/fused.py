"""`network`'s functions for fitting on CPUs: the same values and gradients, several times as fast.

Each is one pass over blocks that stay in the first cache, forwards and backwards at once where the
value is a sum, so that what lies between (twenty contexts, forty-eight channels for each latent) is
never written to memory. Float32 on the CPU only. Kernels run on the caller's thread, or side by
side inside `on_all_cores`; what they add up is the same to the bit, for parts are added in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias, TypeVar, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from codec.models.inr.layout import CONTEXTS, GRIDS, IFCE_LEVELS
from codec.models.inr.network import REACH, Parameters, aligned

__all__ = ["bits", "on_all_cores", "soft_round", "synthesise", "upsample"]

Floats: TypeAlias = npt.NDArray[np.float32]
Integers: TypeAlias = npt.NDArray[np.int64]

# Elements of a plane that one call of a kernel works on, about: some hundred microseconds.
PART = 1 << 14

SHARES = 4  # of a thread: what is large or delayed is evened out, and calls are few

Found = TypeVar("Found")


@final
@dataclass(frozen=True)
class _Cores:
    """Threads that wait for work, and how many."""

    pool: Executor
    count: int


_cores: ContextVar[_Cores | None] = ContextVar("_cores", default=None)


@contextmanager
def on_all_cores() -> Iterator[None]:
    """Kernels run on as many threads as torch has, and torch on one until the end.

    Torch's own threads would be in the way: they keep spinning between its operations.
    """
    count = torch.get_num_threads()
    if count == 1:
        yield
        return
    torch.set_num_threads(1)
    with ThreadPoolExecutor(count) as pool:
        before = _cores.set(_Cores(pool, count))
        try:
            yield
        finally:
            _cores.reset(before)
            torch.set_num_threads(count)


def soft_round(y: Tensor, noise: Tensor, temperature: Tensor) -> Tensor:
    """Latents as if rounded: `network.soft_round`, which can be derived once.

    Args:
        y: latents in steps, float32, of any shape.
        noise: as `y`, not derived.
        temperature: one number, more than 0.
    """
    found: Tensor = _SoftRound.apply(y, noise, float(temperature))  # type: ignore[no-untyped-call]
    return found


class _SoftRound(torch.autograd.Function):
    """Finds the derivative with the value."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, noise: Tensor, temperature: float) -> Tensor:
        latents, noises = _arrays(y.flatten(), noise.flatten())
        found, slope = np.empty_like(latents), np.empty_like(latents)

        def one(first: int, last: int) -> None:
            _kernels().soft_rounding(latents, noises, first, last, temperature, found, slope)

        _each(one, _parts(len(latents), 1))
        ctx.save_for_backward(torch.from_numpy(slope).view_as(y))
        return torch.from_numpy(found).view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None


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
            weight, bias = (parameters[f"ifce.{place.level}.{kind}"] for kind in ("weight", "bias"))
            coarse = aligned(grids[:number], place.level)
            maps.append(_convolved(coarse, weight[..., None, None], bias))
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


def upsample(grids: Sequence[Tensor], parameters: Parameters) -> Tensor:
    """Latents of all levels at the picture's size: `network.upsample`, which can be derived once.

    Args:
        grids: y_6 .. y_0, `(B, h, w)` float32 each.
        parameters: float32.

    Returns:
        `(B, 7, H, W)`, from y_6 on.
    """
    stack = grids[0][:, None]
    for number, grid in enumerate(grids[1:]):
        plane = grid[:, None]
        doubled = _doubled(stack, parameters["up.kernel.weight"][:, number])
        sharpened = plane + _filtered(plane, parameters["up.filter.weight"][:, number])
        rows, columns = grid.shape[1:]
        stack = torch.cat([doubled[:, :, :rows, :columns], sharpened], dim=1)
    return stack


def _doubled(x: Tensor, taps: Tensor) -> Tensor:
    """Twice as large: the transposed convolution with taps a b c d d c b a, edges repeated."""
    batch, channels, height, width = x.shape
    planes = functional.pad(x, (2, 2, 2, 2), mode="replicate").flatten(0, 1)
    found: Tensor = _Doubling.apply(planes, taps.repeat_interleave(channels, 0))  # type: ignore[no-untyped-call]
    return found.view(batch, channels, 2 * height, 2 * width)


class _Doubling(torch.autograd.Function):
    """`(B, h + 4, w + 4)` and taps `(B, 4)` -> `(B, 2 h, 2 w)`."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor, taps: Tensor) -> Tensor:
        ctx.save_for_backward(planes, taps)
        x, each_taps = _arrays(planes, taps)
        batch, height, width = x.shape
        found = np.empty((batch, 2 * height - 8, 2 * width - 8), np.float32)

        def one(b: int, first: int, last: int) -> None:
            _kernels().doubling(x[b], first, last, each_taps[b], found[b])

        rows = _parts(*found.shape[1:])
        _each(one, [(b, *part) for b in range(batch) for part in rows])
        return torch.from_numpy(found)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        out_grad, x, each_taps = _arrays(grad, *ctx.saved_tensors)
        x_grad, taps_grad = np.zeros_like(x), np.zeros_like(each_taps)

        def one(b: int, first: int, last: int) -> tuple[Floats, Floats]:
            own = np.zeros(((last - first) // 2 + 4, x.shape[2]), np.float32)
            own_taps = np.zeros(4, np.float32)
            _kernels().doubling_back(out_grad[b], x[b], first, last, each_taps[b], own, own_taps)
            return own, own_taps

        rows = _parts(*grad.shape[1:])
        parts = [(b, *part) for b in range(len(grad)) for part in rows]
        for (b, first, _), own in zip(parts, _each(one, parts), strict=True):
            top = first // 2
            _add([x_grad[b, top : top + len(own[0])], taps_grad[b]], own)
        return torch.from_numpy(x_grad), torch.from_numpy(taps_grad)


def _filtered(x: Tensor, taps: Tensor) -> Tensor:
    """The convolution with taps d c b a b c d both ways, zeros around."""
    weight = torch.cat([taps.flip(1), taps[:, 1:]], dim=1)[:, None, None]
    high = _convolved(functional.pad(x, (0, 0, 3, 3)), weight[:, :, :, :, None])
    return _convolved(functional.pad(high, (3, 3, 0, 0)), weight[:, :, :, None])


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
        middle = functional.pad(torch.eye(3)[:, :, None, None], (1, 1, 1, 1))
        bias = parameters[name.replace("weight", "bias")]
        padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        x = _convolved(padded, parameters[name] + middle, bias)
        if number < len(layers) - 1:
            x = x.relu()
    return x


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

        _each(one, [(b, *part) for b in range(len(x)) for part in _parts(x.shape[2], 1)])
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


def _convolved(padded: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`(B, I, h, w)` and a filter for each picture, `(B, O, I, rows, columns)` -> `(B, O, ...)`."""
    batch, outputs = weight.shape[:2]
    if bias is None:
        bias = weight.new_zeros(batch, outputs)
    rows, columns = -outputs % 4, -weight[0, 0].numel() % 4
    found: Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]
        padded,
        functional.pad(weight.flatten(2), (0, columns, 0, rows)),
        functional.pad(bias, (0, rows)),
        outputs,
        weight.shape[3:],
    )
    return found


class _Convolution(torch.autograd.Function):
    """`(B, I, h, w)`, weights and biases of multiples of four -> `(B, outputs, ...)`, less borders.

    The window has an odd number of rows, and of columns.
    """

    @staticmethod
    def forward(
        ctx: Any, padded: Tensor, weight: Tensor, bias: Tensor, outputs: int, window: Sequence[int]
    ) -> Tensor:
        ctx.save_for_backward(padded, weight, bias)
        ctx.window = window
        kernels = _kernels()
        x, weights, biases = _arrays(padded.flatten(2), weight, bias)
        offsets, parts = _taps(padded, window)
        found = np.empty((len(x), outputs, x.shape[2]), np.float32)

        def one(b: int, first: int, last: int) -> None:
            kernels.convolution(x[b], first, last, offsets, weights[b], biases[b], found[b])

        _each(one, parts)
        height, width = (
            size - taps + 1 for size, taps in zip(padded.shape[2:], window, strict=True)
        )
        whole = torch.from_numpy(found).view(len(x), outputs, *padded.shape[2:])
        return whole[:, :, window[0] // 2 :, window[1] // 2 :][:, :, :height, :width]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        padded, weight, bias = ctx.saved_tensors
        kernels = _kernels()
        above, before = ctx.window[0] // 2, ctx.window[1] // 2
        whole = functional.pad(grad, (before, before, above, above))
        out_grad, x, weights, biases = _arrays(whole.flatten(2), padded.flatten(2), weight, bias)
        offsets, parts = _taps(padded, ctx.window)
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
        return *(torch.from_numpy(each) for each in (x_grad, weight_grad, bias_grad)), None, None


def _taps(padded: Tensor, window: Sequence[int]) -> tuple[Integers, list[tuple[int, int, int]]]:
    """How far a pixel's neighbours are in a plane with borders; its parts, for each picture.

    A part also has the borders between its rows, of which what is found is of no use.
    """
    batch, _, height, stride = padded.shape
    above, before = window[0] // 2, window[1] // 2
    offsets = np.array(
        [
            row * stride + column
            for row in range(-above, above + 1)
            for column in range(-before, before + 1)
        ]
    )
    parts = [
        ((above + start) * stride + before, (above + stop) * stride - before)
        for start, stop in _parts(height - 2 * above, stride)
    ]
    return offsets, [(b, *part) for b in range(batch) for part in parts]


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


def _each(work: Callable[..., Found], parts: Sequence[tuple[int, ...]]) -> list[Found]:
    """What `work` finds for each part, in their order."""

    def some(chosen: Sequence[tuple[int, ...]]) -> list[Found]:
        return [work(*part) for part in chosen]

    cores = _cores.get()
    if cores is None or len(parts) == 1:
        return some(parts)
    shares = min(len(parts), SHARES * cores.count)
    found = list(cores.pool.map(some, (parts[n::shares] for n in range(shares))))
    return [found[n % shares][n // shares] for n in range(len(parts))]


def _kernels() -> ModuleType:
    from codec.models.inr import fused_kernels  # numba takes half a second to import

    return fused_kernels

"""Fit a network to the frames of a group, within bits. The encoder's part: knows no coder, no file.

After a start in floats, weights and embeddings are rounded in learned steps while they learn, and
the bits that they would cost join the loss where they are above what is allowed.

On a GPU frames are drawn in bfloat16 by compiled kernels; losses, rounding and all that learns are
float32 everywhere.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from codec.entropy import IntArray
from codec.models.base import Search, ended_by
from codec.models.nerv.layout import Layout
from codec.models.nerv.network import draw, encoded_times, fresh
from codec.models.nerv.syntax import OCTAVE, UNIT_STEP, Group
from codec.models.nerv.tables import STEPS
from codec.models.quantize import add_noise, round_ste

__all__ = ["fit"]

logger = logging.getLogger(__name__)

RATES = (8e-3, 2e-2, 1e-2)  # per step, of weights, embeddings, and log2 of steps
RATE_END = 0.01
WARM_UP = 0.05  # of the time
IN_FLOATS = 0.25  # of the time
BETAS = (0.9, 0.99)
BITS_WEIGHT = 5.0  # of bits over what is allowed, a fraction of it, against log of the error
Q_MAX = 1 << 15
SMOOTHING = 0.97  # of the running error
COLLAPSE_DB = 3.0
INSTANT = 1e-3  # seconds: less is not allowed
SAID_STEPS = 50  # between notes, and between looks for a collapse
KEPT_SECONDS = 30.0  # between bookmarks


def fit(x: Tensor, layout: Layout, bits: float, iterations: int, search: Search) -> Group:
    """The network that draws `x` best within about so many bits.

    Args:
        x: `(frames, 3, height, width)` uint8, on the device to fit on.
        layout: of the network.
        bits: of weights and embeddings.
        iterations: steps, of a frame each; fewer if `search.seconds` are over before.
        search: see `Search`; its effort is not looked at. Steps and seconds up to its bookmark
            are of those allowed, and the schedule never goes back.
    """
    descent = _Descent(x, layout, bits)
    kept = search.bookmark.find() if search.bookmark else None
    if kept is not None and not descent.go_on(kept):
        logger.warning("what was kept of a fit is of another network or device: it begins again")
    if search.interrupted is not None and search.interrupted.is_set():
        iterations = min(iterations, SAID_STEPS)
    marked = now = time.monotonic()
    with ended_by(search.interrupted):
        while descent.steps < iterations:
            before, now = now, time.monotonic()
            descent.seconds += now - before
            passed = descent.seconds / max(search.seconds, INSTANT)
            share = max(descent.share, descent.steps / iterations, passed)
            if share >= 1:
                break
            descent.step(share)
            if descent.steps % SAID_STEPS == 0:
                descent.look()
                search.watch(share, descent.note)
            if search.bookmark and now - marked >= KEPT_SECONDS:
                search.bookmark.keep(descent.state())
                marked = now
    descent.look()
    return descent.group()


@final
@dataclass
class _State:
    """What learns: flat weights, embeddings, and log2 of the step of each tensor and channel."""

    weights: Tensor
    embeddings: Tensor
    log_steps: Tensor

    def leaves(self) -> list[Tensor]:
        return [self.weights, self.embeddings, self.log_steps]


@final
class _Descent:
    """The state of a fit: `steps` were made in `seconds`, and the schedule is at `share`."""

    def __init__(self, x: Tensor, layout: Layout, bits: float) -> None:
        self.steps, self.seconds, self.share = 0, 0.0, 0.0
        self._x, self._layout, self._device = x, layout, x.device
        self._generator = torch.Generator().manual_seed(0)
        self._noise = torch.Generator(x.device).manual_seed(0)
        self._sizes = [math.prod(shape) for shape in layout.shapes.values()]
        self._bits = bits
        weights = fresh(layout, self._generator)
        mean = torch.stack([frame.float().mean((1, 2)) for frame in x]).mean(0).cpu() / 255
        weights["head.bias"] = mean - 0.5
        flat = torch.cat([value.reshape(-1) for value in weights.values()])
        count = len(self._sizes) + layout.embedded
        self._state = _State(flat, _start(x, layout), torch.zeros(count))
        for name, value in list(vars(self._state).items()):
            setattr(self._state, name, value.to(self._device).requires_grad_())
        tensors = torch.arange(len(self._sizes))
        self._tensor_of = torch.repeat_interleave(tensors, torch.tensor(self._sizes))
        self._tensor_of = self._tensor_of.to(self._device)
        self._times = encoded_times(layout.frames).to(self._device)
        self._drawn = _drawn
        self._optimiser = self._begin()
        self._error, self._cost = math.nan, math.nan
        self._rounds = False
        self._order: list[int] = []
        self._best_error, self._best = math.inf, self._copy()
        if self._device.type == "cuda":
            self._compile()

    def _compile(self) -> None:
        """Draw in half precision by kernels for this layout, compiled before any clock starts."""
        from codec.entropy.device import has_triton

        self._drawn = _drawn_in_half
        if has_triton():
            self._drawn = torch.compile(_drawn_in_half, mode="reduce-overhead", dynamic=False)
        torch.autograd.backward(self._frame(0).sum())
        self._optimiser.zero_grad(set_to_none=True)

    # ---- a step

    def step(self, share: float) -> None:
        """One frame's, at `share` of the schedule."""
        if share >= IN_FLOATS and not self._rounds:
            self._begin_rounding()
        decay = RATE_END + (1 - RATE_END) * (1 + math.cos(math.pi * share)) / 2
        decay *= min(1.0, (share + 0.1 * WARM_UP) / WARM_UP)
        for group, rate in zip(self._optimiser.param_groups, RATES, strict=True):
            group["lr"] = rate * decay
        self._optimiser.zero_grad(set_to_none=True)  # before what CUDA graphs gave is overwritten
        number = self._next()
        x = self._x[number : number + 1].float() / 255
        error = functional.mse_loss(self._frame(number), x)
        loss = error / max(self._running(float(error.detach())), 1e-9)
        if self._rounds:
            cost = self._cost_bits() / self._bits
            self._cost = float(cost.detach())
            loss = loss + BITS_WEIGHT * functional.relu(cost - 1)
        torch.autograd.backward(loss)
        self._optimiser.step()
        self.steps, self.share = self.steps + 1, share

    def _begin(self) -> torch.optim.Adam:
        groups = [{"params": [leaf], "lr": 0.0} for leaf in self._state.leaves()]
        optimiser = torch.optim.Adam(groups, betas=BETAS)
        for leaf in self._state.leaves():  # as Adam begins, but before a step: `state` has it
            moments = {name: torch.zeros_like(leaf) for name in ("exp_avg", "exp_avg_sq")}
            optimiser.state[leaf] = {"step": torch.zeros(()), **moments}
        return optimiser

    def _next(self) -> int:
        """Frames come in an order of chance, all before one comes again."""
        if not self._order:
            self._order = torch.randperm(len(self._x), generator=self._generator).tolist()
        return self._order.pop()

    def _running(self, error: float) -> float:
        if math.isnan(self._error):
            self._error = error
        self._error = SMOOTHING * self._error + (1 - SMOOTHING) * error
        return self._error

    def _frame(self, number: int) -> Tensor:
        steps = self._steps()
        flat = self._state.weights
        embeddings = self._state.embeddings[:, number : number + 1].contiguous()
        if self._rounds:
            own = steps[: len(self._sizes)][self._tensor_of]
            flat = round_ste(flat / own) * own
            own = steps[len(self._sizes) :, None, None, None]
            embeddings = round_ste(embeddings / own) * own
        times = self._times[number : number + 1]
        return self._drawn(flat, self._layout, times, embeddings.transpose(0, 1))

    # ---- rounding

    def _steps(self) -> Tensor:
        """Of every tensor and channel, of those that a stream can say."""
        index = round_ste(self._state.log_steps * OCTAVE + UNIT_STEP).clamp(0, STEPS - 1)
        return torch.exp2((index - UNIT_STEP) / OCTAVE)

    @torch.no_grad()
    def _begin_rounding(self) -> None:
        """Steps with which all parameters cost the same bits, as many as are allowed."""
        each = self._bits / self._layout.parameters
        # A Laplace of scale b in steps has log2(2 e b) bits where b is well above 1.
        wanted = max(2.0**each / (2 * math.e), 0.2)
        flat = self._state.weights.abs()
        scales = torch.zeros(len(self._sizes), device=self._device)
        scales = scales.index_add(0, self._tensor_of, flat) / torch.tensor(
            self._sizes, device=self._device
        )
        scales = torch.cat([scales, self._state.embeddings.abs().mean((1, 2, 3))])
        self._state.log_steps.copy_((scales / wanted).clamp(2.0**-12).log2())
        self._rounds = True
        # What was best in floats has no steps, and would always be better than what is rounded.
        self._error, self._best_error, self._best = math.nan, math.inf, self._copy()

    def _cost_bits(self) -> Tensor:
        """About what all parameters cost, with noise in place of rounding."""
        steps = self._steps()
        c = self._state.weights / steps[: len(self._sizes)][self._tensor_of]
        total = _laplace_bits(c, self._tensor_of, len(self._sizes), self._noise)
        if self._layout.embedded:
            c = self._state.embeddings / steps[len(self._sizes) :, None, None, None]
            before = round_ste(c[:, :-1])
            now = c[:, 1:].detach()
            about = before.detach()
            products = (now * about).sum((1, 2, 3)), about.square().sum((1, 2, 3)) + 1e-6
            predictor = (products[0] / products[1]).clamp(0, 1)[:, None, None, None]
            residuals = torch.cat([c[:, :1], c[:, 1:] - predictor * before], dim=1)
            channels = torch.arange(len(c), device=self._device)
            of = channels.repeat_interleave(residuals[0].numel())
            total = total + _laplace_bits(residuals.reshape(-1), of, len(c), self._noise)
        return total

    # ---- going on where another stopped

    def state(self) -> dict[str, Tensor]:
        """All that a descent of the same frames, network and bits needs to go on from here."""
        numbers = [self.steps, self.seconds, self.share, self._rounds]
        numbers += [self._error, self._best_error]
        order = self._order + [-1] * (len(self._x) - len(self._order))
        return {
            "numbers": torch.tensor(numbers, dtype=torch.float64),
            "order": torch.tensor(order),
            "generator": self._generator.get_state(),
            "noise": self._noise.get_state(),
            **self._learned(),
        }

    @torch.no_grad()
    def go_on(self, state: Mapping[str, Tensor]) -> bool:
        """Take over a `state`; nothing happens, and False, if it is of another network."""
        if _shapes(state) != _shapes(self.state()):
            return False
        steps, self.seconds, self.share, rounds, *errors = state["numbers"].tolist()
        self.steps, self._rounds = int(steps), bool(rounds)
        self._error, self._best_error = errors
        self._order = [number for number in state["order"].tolist() if number >= 0]
        self._generator.set_state(state["generator"])
        self._noise.set_state(state["noise"])
        for name, value in self._learned().items():
            value.copy_(state[name])
        return True

    def _learned(self) -> dict[str, Tensor]:
        """The tensors themselves that steps and looks change."""
        found: dict[str, Tensor] = {}
        for (name, leaf), best in zip(vars(self._state).items(), self._best, strict=True):
            own = {"now": leaf.detach(), "best": best, **self._optimiser.state[leaf]}
            found |= {f"{name}.{part}": value for part, value in own.items()}
        return found

    # ---- watching

    def look(self) -> None:
        """Keep the state if it is the best, go back to the best if it has collapsed."""
        collapsed = 10 ** (COLLAPSE_DB / 10) * self._best_error
        if not math.isfinite(self._error) or self._error > collapsed:
            for leaf, kept in zip(self._state.leaves(), self._best, strict=True):
                leaf.data.copy_(kept)
            self._optimiser = self._begin()
            self._error = math.nan
        elif self._error <= self._best_error:
            self._best_error, self._best = self._error, self._copy()

    def _copy(self) -> list[Tensor]:
        return [leaf.detach().clone() for leaf in self._state.leaves()]

    @property
    def note(self) -> str:
        """How good it is, for people."""
        if math.isnan(self._error):
            return "collapsed, begins again from the best"
        psnr = -10 * math.log10(max(self._error, 1e-10))
        pixels = len(self._x) * self._layout.height * self._layout.width
        if not self._rounds:
            return f"{psnr:.2f} dB in floats"
        return f"{psnr:.2f} dB, {self._cost * self._bits / pixels:.4f} bpp"

    @torch.no_grad()
    def group(self) -> Group:
        """In integers."""
        if not self._rounds:
            self._begin_rounding()
        steps = self._steps()
        weights = self._state.weights / steps[: len(self._sizes)][self._tensor_of]
        embeddings = self._state.embeddings / steps[len(self._sizes) :, None, None, None]
        index = torch.round(torch.log2(steps) * OCTAVE) + UNIT_STEP
        return Group(self._layout, *(_integers(own) for own in (index, weights, embeddings)))


def _drawn(flat: Tensor, layout: Layout, times: Tensor, embeddings: Tensor) -> Tensor:
    """`draw` with weights that lie one after the other, and embeddings that may have no channel."""
    parts = torch.split(flat, [math.prod(shape) for shape in layout.shapes.values()])
    weights = {
        name: _ordered(part.view(shape))
        for (name, shape), part in zip(layout.shapes.items(), parts, strict=True)
    }
    return draw(weights, layout, times, embeddings if layout.embedded else None)


def _drawn_in_half(flat: Tensor, layout: Layout, times: Tensor, embeddings: Tensor) -> Tensor:
    """`_drawn` computed in bfloat16; what goes in and out, and gradients, are float32."""
    with torch.autocast(flat.device.type, torch.bfloat16):
        return _drawn(flat, layout, times, embeddings).float()


def _start(x: Tensor, layout: Layout) -> Tensor:
    """Embeddings `(embedded, frames, h, w)` to begin with: principal components of small frames."""
    if not layout.embedded:
        return torch.zeros(0, *layout.embeddings)
    fine = 4
    size = tuple(fine * side for side in layout.grid)
    small = torch.cat([functional.interpolate(f[None].float(), size, mode="area") for f in x])
    patches = functional.pixel_unshuffle(small.cpu() / 255, fine)
    flat = patches.transpose(0, 1).flatten(1)
    flat = (flat - flat.mean(1, keepdim=True)).double()
    _, basis = torch.linalg.eigh(flat @ flat.T)
    found = basis.flip(1)[:, : layout.embedded].T @ flat
    found = found / found.std(1, correction=0, keepdim=True).clamp(min=1e-6)
    missing = layout.embedded - len(found)
    found = functional.pad(found, (0, 0, 0, max(0, missing)))
    return found.float().reshape(layout.embedded, *layout.embeddings)


def _laplace_bits(c: Tensor, of: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Bits of `(K,)` values in steps, with noise, each of a Laplace with its tensor's mean |c|."""
    sums = torch.zeros(2, count, device=c.device)
    sizes = sums[0].index_add(0, of, torch.ones_like(c))
    scales = sums[1].index_add(0, of, c.abs()) / sizes
    b = (scales.clamp(min=0.1))[of]
    distance = add_noise(c, generator=generator).abs()
    # Below 1/2 the bin holds the peak: the probability is 1 - cosh(d / b) exp(-1 / 2b).
    inside = 1 - 0.5 * (
        torch.exp(-(0.5 - distance.clamp(max=0.5)) / b) + torch.exp(-(0.5 + distance) / b)
    )
    outside = (distance.clamp(min=0.5) - 0.5) / b - torch.log(-torch.expm1(-1 / b)) + math.log(2)
    nats = torch.where(distance < 0.5, -torch.log(inside.clamp(min=1e-12)), outside)
    return nats.sum() / math.log(2)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in state.items()}


def _ordered(weight: Tensor) -> Tensor:
    if weight.dim() < 4:
        return weight
    return weight.contiguous(memory_format=torch.channels_last)


def _integers(values: Tensor) -> IntArray:
    found: IntArray = (
        values.nan_to_num().round().clamp(-Q_MAX, Q_MAX).cpu().numpy().astype(np.int32)
    )
    return found

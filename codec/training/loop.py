"""The training loop: a function of samples seen over samples planned. Knows no family.

A run is cut into pieces at will: weights, their running average, optimiser, random state and
counters are saved every half minute and at the end; a time limit, SIGTERM or Ctrl-C ends a piece at
the next report, and the next piece goes on from there as if nothing had been.

On a GPU a whole step, from the crops to the running average, is one CUDA graph: the layers are so
thin that launching them one by one takes six times as long as their work.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from codec.datasets import read_photos
from codec.errors import InputError
from codec.models.layers import QUALITY_MAX
from codec.models.replay import Replay, Work
from codec.training.muon import Muon
from codec.training.patches import Patches
from codec.training.recipe import Recipe, Stage, read_recipe
from codec.training.start import fresh

__all__ = ["Trainer", "rate_distortion", "run"]

REPORT_STEPS = 200
SAVE_SECONDS = 30

log = logging.getLogger(__name__)


def run(
    recipe: Path, *, resume: bool = False, time_limit: float | None = None, out: Path | None = None
) -> Path:
    """Train as `recipe` says; the work of `codec train`.

    Args:
        recipe: a TOML file (`codec.training.recipe`).
        resume: go on from the state in `out`; without it a state there is an error.
        time_limit: minutes after which the piece ends and its state is saved.
        out: folder of the state and the log; `runs/<name of the recipe file>` if not given.

    Returns:
        The file of the saved state.

    Raises:
        InputError: a state without `resume`, or the recipe or its data cannot be read.
    """
    started = time.monotonic()
    plan = read_recipe(recipe)
    folder = out or Path("runs") / recipe.stem
    state = folder / "state.pt"
    if state.exists() and not resume:
        raise InputError(f"{state} exists; --resume goes on from it")
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(plan, Patches(read_photos(plan.data), device), device)
    if state.exists():
        trainer.load_state(torch.load(state, map_location=device, weights_only=True))
    saved = started
    with _stop_on_signal() as stopped, (folder / "log.jsonl").open("a") as journal:
        for report in trainer.reports():
            journal.write(json.dumps(report) + "\n")
            journal.flush()
            log.info("%s", report)
            if time.monotonic() - saved > SAVE_SECONDS:
                _save_state(trainer, state)
                saved = time.monotonic()
            if stopped() or (time_limit and time.monotonic() - started > 60 * time_limit):
                break
    _save_state(trainer, state)
    return state


def _save_state(trainer: Trainer, path: Path) -> None:
    """Write the state whole, or leave the one that is there."""
    partial = path.with_suffix(".partial")
    torch.save(trainer.state(), partial)
    partial.replace(path)


@contextmanager
def _stop_on_signal() -> Iterator[Any]:
    """Within, SIGTERM and Ctrl-C only make the yielded function return True."""
    received: list[int] = []
    names = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(name, lambda number, _: received.append(number)) for name in names]
    try:
        yield lambda: bool(received)
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)


def rate_distortion(bpp: Tensor, mse: Tensor, lmbda: Tensor) -> Tensor:
    """The loss `(bpp + lambda 255^2 MSE) / sqrt(lambda)`, mean over samples; all arguments `(N,)`.

    Dividing by sqrt(lambda) makes all rates weigh about the same; without it the highest would own
    the gradient.
    """
    return ((bpp + lmbda * 255**2 * mse) / lmbda.sqrt()).mean()


@final
class Trainer:
    """One run: network, running average, optimiser, counters. `reports()` does the work."""

    def __init__(self, recipe: Recipe, patches: Patches, device: torch.device) -> None:
        self.recipe, self.patches, self.device = recipe, patches, device
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.rate = torch.zeros((), device=device)
        self.network = fresh(recipe, self._draw)
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.stage, self.seen, self.samples = 0, 0, 0
        self.optimiser = self._make_optimiser()

    def _draw(self, count: int) -> Tensor:
        """Some patches `(count, 3, 256, 256)`, for the start of a network."""
        numbers = torch.rand(count, 4, generator=self.generator)
        return self.patches.draw(numbers.to(self.device), 256).cpu()

    def _make_optimiser(self) -> torch.optim.Optimizer:
        """A fresh optimiser over what the present stage trains; the rest is frozen."""
        network, train = self.network, self.recipe.stages[self.stage].train
        network.requires_grad_(train == "all")
        moved: list[nn.Parameter] = list(network.parameters())
        if train != "all":
            moved = network.entropy_parameters()
            if train == "decoder":
                moved += [*network.g_s.parameters(), *network.inverse_gain.parameters()]
        for parameter in moved:
            parameter.requires_grad_(True)
        if self.recipe.optimiser == "muon":
            return Muon(moved, lr=self.rate)
        return torch.optim.AdamW(
            moved,
            lr=self.rate,
            betas=(0.9, 0.98),
            weight_decay=0.0,
            fused=True,
            capturable=self.device.type == "cuda",
        )

    def state(self) -> dict[str, Any]:
        """Everything the next piece needs, loadable with `weights_only=True`."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "counters": {"stage": self.stage, "seen": self.seen, "samples": self.samples},
            "config": asdict(self.network.config),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Become what `state()` described."""
        self.stage, self.seen, self.samples = state["counters"].values()
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.generator.set_state(state["generator"].cpu())
        if self.stage < len(self.recipe.stages):
            self.optimiser = self._make_optimiser()
            if self.seen:  # at the start of a stage the saved one may be that of the stage before
                self.optimiser.load_state_dict(state["optimiser"])
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate

    def reports(self) -> Iterator[dict[str, Any]]:
        """Train to the end of the last stage; yield a report every 200 steps and at a stage's end.

        A loss that is no number, or three times the last report's, undoes the steps since then.
        """
        while self.stage < len(self.recipe.stages):
            stage = self.recipe.stages[self.stage]
            good, good_loss = copy.deepcopy(self.state()), math.inf
            step = self._make_step(stage)
            while self.seen < stage.samples:
                report = self._steps(stage, step)
                if not report["loss"] < 3 * good_loss:
                    log.warning("loss %s after %s: going back", report["loss"], good_loss)
                    noise = self.generator.get_state()  # not the same samples again
                    self.load_state(good)
                    self.generator.set_state(noise)
                    step = self._make_step(stage)
                    continue
                good, good_loss = copy.deepcopy(self.state()), report["loss"]
                yield report
            self.stage, self.seen = self.stage + 1, 0
            if self.stage < len(self.recipe.stages):
                self.optimiser = self._make_optimiser()

    def _loss(self, x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, and bpp and MSE of each sample; stage `entropy` needs no pixels, so no MSE."""
        dtype = getattr(torch, self.recipe.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            if self.recipe.stages[self.stage].train == "entropy":
                bpp = self.network.cost(x, quality) / (x.shape[2] * x.shape[3])
                mse = torch.zeros_like(bpp)
            else:
                x_hat, bits = self.network(x, quality)
                bpp = bits / (x.shape[2] * x.shape[3])
                mse = (x_hat - x).square().mean((1, 2, 3))
        return rate_distortion(bpp, mse, self.network.config.lmbda_of(quality)), bpp, mse

    def _make_step(self, stage: Stage) -> Work:
        """One step of `stage` with the present optimiser.

        It takes numbers in [0, 1) `(batch, 5)`, four for `Patches` and the quality, and the share
        of the new weights in their average; it gives loss, bpp and PSNR `(3,)`.
        """
        loss_of: Callable[..., Any] = self._loss
        if self.recipe.compile:
            loss_of = torch.compile(loss_of, dynamic=False)

        def step(numbers: Tensor, share: Tensor) -> Tensor:
            x = self.patches.draw(numbers[:, :4], stage.crop)
            x = x.contiguous(memory_format=torch.channels_last)
            self.optimiser.zero_grad(set_to_none=True)
            loss, bpp, mse = loss_of(x, QUALITY_MAX * numbers[:, 4])
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
            self.optimiser.step()
            self._average(share)
            psnr = -10 * mse.detach().clamp(min=1e-12).log10().mean()
            return torch.stack([loss.detach(), bpp.detach().mean(), psnr])

        return Replay(step) if self.device.type == "cuda" else step

    def _steps(self, stage: Stage, step: Work) -> dict[str, Any]:
        """Train for one report's steps; nothing is read from the device before their end."""
        started, first = time.monotonic(), self.seen
        count = min(REPORT_STEPS, -(-(stage.samples - self.seen) // stage.batch))
        numbers = torch.rand(count, stage.batch, 5, generator=self.generator).to(self.device)
        sums = torch.zeros(3, device=self.device)
        for row in numbers:
            self.rate.fill_(stage.rate(self.seen))
            sums += step(row, torch.full_like(self.rate, self._share(stage.batch)))
            self.seen += stage.batch
            self.samples += stage.batch
        means = (sums / count).tolist()
        seconds = time.monotonic() - started
        return {
            "stage": stage.name,
            "samples": self.samples,
            "loss": round(means[0], 4),
            "bpp": round(means[1], 4),
            "psnr": round(means[2], 3),
            "samples_per_second": round((self.seen - first) / seconds, 1),
        }

    def _share(self, batch: int) -> float:
        """Of the new weights in their average: larger while the run is young."""
        steps = self.samples / batch
        return 1 - min(self.recipe.ema, (1 + steps) / (10 + steps))

    @torch.no_grad()
    def _average(self, share: Tensor) -> None:
        """Move the running average."""
        average: list[Tensor] = list(self.average.parameters())
        network: list[Tensor] = list(self.network.parameters())
        away = list(torch._foreach_sub(network, average))
        torch._foreach_mul_(away, share)
        torch._foreach_add_(average, away)

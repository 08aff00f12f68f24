"""One prior of `inr`: networks that many pieces of photographs share, with latents of their own.

    python -m codec.training.inr_priors TAR --preset hop --lmbda 5e-4 --out runs/inr/priors.pt

Adds the prior to those that the file already has, which is what `export_inr` wants. Knows no file
of the zoo.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from codec.datasets import read_photos
from codec.models.inr.layout import PRESETS, preset_called
from codec.models.inr.network import fresh
from codec.models.inr.overfit import Report, overfit

__all__ = ["fit_prior", "main", "pieces"]

SIDE = 256


def pieces(sources: Sequence[Path], count: int, seed: int) -> Tensor:
    """The middle 256x256 of photographs drawn at random, `(count, 3, 256, 256)` in [0, 1].

    Raises:
        InputError: a source cannot be read, or has no photograph that is large enough.
        ValueError: there are fewer photographs than `count`.
    """
    photos = read_photos(sources, least=SIDE)
    chosen = np.random.default_rng(seed).choice(len(photos), count, replace=False)
    found = []
    for number in chosen:
        top, left = ((side - SIDE) // 2 for side in photos[number].shape[1:])
        found.append(photos[number][:, top : top + SIDE, left : left + SIDE])
    return torch.from_numpy(np.stack(found)).float() / 255


def fit_prior(
    x: Tensor, start: Mapping[str, Tensor], lmbda: float, *, steps: int, seconds: float = math.inf
) -> dict[str, Tensor]:
    """Networks for many pictures, fitted as those of one are (Cool-chic 5); prints how far it is.

    Args:
        x: pieces of photographs `(B, 3, H, W)` in [0, 1].
        start: networks to begin with, `(1, ...)` each.
        lmbda: what a bit is worth, in squared errors.
        steps: that the schedule is spread over.
        seconds: if they are over before, the schedule ends with them.

    Returns:
        Tensors by the names of `layout.shapes`, in their shapes.
    """

    def watch(report: Report) -> None:
        bpp, error = (float(each.sum()) / x[:, 0].numel() for each in (report.bits, report.error))
        print(f"{report.share:.2f} cost {error + lmbda * bpp:.6f} {bpp:.4f} bpp", flush=True)

    fit = overfit(
        x,
        torch.full((len(x),), lmbda),
        start,
        iterations=steps,
        seconds=seconds,
        shared=True,
        watch=watch,
    )
    return {name: value[0] for name, value in fit.parameters.items()}


def main() -> None:
    """Fit one and add it to a file."""
    parser = argparse.ArgumentParser(description="Fit a prior of inr to photographs.")
    parser.add_argument("sources", type=Path, nargs="+", metavar="TAR")
    parser.add_argument("--preset", required=True, choices=[preset.name for preset in PRESETS])
    parser.add_argument("--start", type=Path, help="a file whose last prior is where to begin")
    parser.add_argument("--lmbda", type=float, required=True)
    parser.add_argument("--pieces", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    x = pieces(options.sources, options.pieces, options.seed)
    if options.start:
        _, _, networks = torch.load(options.start, weights_only=True)[-1]
        start = {name: value[None] for name, value in networks.items()}
    else:
        preset = preset_called(options.preset)
        start = fresh(preset, 1, torch.Generator().manual_seed(options.seed))
        start["syn.out.bias"] += x.mean((0, 2, 3))
    found = fit_prior(x, start, options.lmbda, steps=options.steps, seconds=options.seconds)
    before = torch.load(options.out, weights_only=True) if options.out.exists() else []
    options.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save([*before, (options.preset, options.lmbda, found)], options.out)


if __name__ == "__main__":
    main()

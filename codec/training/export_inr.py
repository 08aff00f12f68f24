"""From priors of `inr` to weights that ship: round them, make the tables, write, list.

    python -m codec.training.export_inr runs/inr/priors.pt inr/base

Knows no file of the zoo but the one it adds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from codec.models.inr import Inr
from codec.models.inr.layout import IFCE_LEVELS, LEVELS, Preset, coarser, preset_called
from codec.models.inr.parameters import Prior, codes, prior_unit
from codec.models.inr.tables import laplace_tables, side_tables
from codec.training.ship import ship

__all__ = ["decode_macs", "export", "freeze"]


def freeze(priors: Sequence[tuple[str, float, Mapping[str, Tensor]]]) -> Inr:
    """The codec with these priors, rounded to what a weight file can hold.

    Args:
        priors: of each the preset's name, the lambda, and tensors by the names of `layout.shapes`.
    """
    made = []
    for name, lmbda, tensors in priors:
        values = {}
        for tensor, value in tensors.items():
            own = value.detach().cpu().float().double().numpy()
            unit = prior_unit(tensor)
            values[tensor] = np.rint(own / unit) * unit if codes(tensor) else own
        made.append(Prior(preset_called(name), lmbda, values))
    return Inr(made, laplace_tables(), side_tables(len(made)))


def export(priors: Path, name: str, zoo: Path, recipe: str) -> Path:
    """Write the weights called `name` into `zoo` and list them last in its manifest.

    Args:
        priors: a file of `torch.save`: the list that `freeze` takes.
        name: `inr/variant`; the first in the zoo is the family's default.
        zoo: the folder.
        recipe: how the priors were trained.
    """
    codec = freeze(torch.load(priors, map_location="cpu", weights_only=True))
    return ship(
        codec,
        name,
        zoo,
        parameters=sum(value.size for prior in codec.priors for value in prior.values.values()),
        macs=max(decode_macs(prior.preset) for prior in codec.priors),
        recipe=recipe,
    )


def decode_macs(preset: Preset) -> float:
    """Multiplications of the decoder for each pixel of a large picture."""
    inputs, width = preset.inputs, preset.width
    arm = 4 / 3 * (2 * inputs**2 + 4 * inputs)
    told = sum(preset.features * coarser(k) * 0.25 ** (k + 1) for k in range(IFCE_LEVELS))
    # Doubling takes 4 taps of 8 a sample, along rows of half the width and along columns; the
    # filter of the grid that joins takes 7 each way.
    up = sum((6 * (LEVELS - 1 - k) + 14) * 0.25**k for k in range(LEVELS - 1))
    synthesis = LEVELS * width + 3 * width + 3 * LEVELS + 81 * preset.residuals
    return arm + told + up + synthesis


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Put priors of inr into the zoo.")
    parser.add_argument("priors", type=Path)
    parser.add_argument("name", help="inr/variant")
    parser.add_argument("--recipe", default="none")
    parser.add_argument("--zoo", type=Path, default=Path(__file__).parents[1] / "zoo")
    options = parser.parse_args()
    print(export(options.priors, options.name, options.zoo, options.recipe))

"""Samples per second of a training recipe's longest stage, on this machine, over 200 steps.

    python benchmarks/training.py recipes/iscs.toml [--steps 200]

Patches are noise of the right size, so no data is needed. Compiling is left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch

from codec.models.layers import macs
from codec.training import loop
from codec.training.export import decode_macs
from codec.training.patches import Patches
from codec.training.recipe import read_recipe


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    plan = read_recipe(options.recipe)
    stage = max(plan.stages, key=lambda item: item.samples)
    # A first report pays for compiling; the second is the measurement.
    loop.REPORT_STEPS = options.steps
    stage = dataclasses.replace(stage, samples=2 * options.steps * stage.batch)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (3, 512, 512), dtype=np.uint8) for _ in range(8)]
    recipe = dataclasses.replace(plan, stages=(stage,))
    trainer = loop.Trainer(recipe, Patches(photos, device), device)
    _, report = trainer.reports()

    network = trainer.network.cpu()
    x, quality = torch.zeros(1, 3, 256, 256), torch.zeros(1)
    result = {
        "recipe": options.recipe.name,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "compiled": plan.compile,
        "precision": plan.precision,
        "stage": stage.name,
        "batch": stage.batch,
        "crop": stage.crop,
        "samples_per_second": report["samples_per_second"],
        "kmac_per_pixel": round(macs(lambda: network(x, quality), network) / 256**2 / 1000, 2),
        "decode_kmac_per_pixel": round(decode_macs(network) / 1000, 2),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

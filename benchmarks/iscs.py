"""What an order of the channels of `iscs` is worth: scores, ablations, contexts, BD-rates.

    python benchmarks/iscs.py TRAIN KODAK [--samples 6400] [--out benchmarks/results/iscs.json]

TRAIN holds photographs to train on, KODAK the images to measure on. The transforms and the
hyperprior of the shipped weights are the start; for each order of the channels and each kind of
context the entropy model is trained further, with fresh context networks, on the same latents in
the same order, while the transforms stay. Measured by the training's own count of hard symbols (no
table is fitted, nothing is written). `parallel` predicts all groups from the core alone, `serial`
each group from all groups before it. Knows no file format.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from latents import cached_latents
from scipy.stats import spearmanr
from torch import Tensor, nn

from codec.benchmark.provenance import origin
from codec.datasets import read_photos
from codec.metrics import bd_rate
from codec.models.context import AuxiliaryMeans, ScaleContext
from codec.models.iscs import Iscs, IscsNetwork
from codec.models.iscs.network import join
from codec.models.iscs.salience import (
    correlations,
    partition,
    product_score,
    regroup,
    reorder,
    strict_score,
)
from codec.training.patches import Patches
from codec.weights import SHIPPED

CORE, GROUPS = 64, 3
BATCH, LR = 16, 1e-3
CACHED = 768  # patches of 256x256, each at a rate of its own
QUALITIES = (10.0, 30.0, 50.0, 70.0, 90.0)
ABLATED = 6  # patches on which each channel is left out in turn

Code = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Serial(nn.Module):
    """Context networks of the auxiliary groups where each sees all groups before it."""

    def __init__(self, network: IscsNetwork) -> None:
        super().__init__()
        config = network.config
        self.means, self.scales, self.parts = nn.ModuleList(), nn.ModuleList(), []
        before = config.core
        for count in config.groups[1:]:
            context = ScaleContext(
                core=before, hidden=config.hyper, width=config.context, out=count, near=False
            )
            self.scales.append(context)
            self.means.append(AuxiliaryMeans(core=before, auxiliary=count, context=config.context))
            self.parts.append(slice(before, before + count))
            before += count

    def code(self, network: IscsNetwork, y: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """`network.code` with these contexts."""
        said = network.code_z(y, quality)
        coded = network.code_core(said, network.means)
        for part, context, means in zip(self.parts, self.scales, self.means, strict=True):
            coded = join(coded, network.code_group(said, coded, part, context, means))
        return coded.y_hat, said.bits + network.bits_of(said, coded)


def plain(shipped: IscsNetwork) -> IscsNetwork:
    """The shipped transforms and hyperprior with fresh means and no groups."""
    made = IscsNetwork(dataclasses.replace(shipped.config, groups=()))
    kept = {
        name: value
        for name, value in shipped.state_dict().items()
        if not name.startswith(("h_s_mean", "scale_context", "auxiliary"))
    }
    made.load_state_dict(kept, strict=False)
    return made


@torch.no_grad()
def damage(network: IscsNetwork, patches: Patches) -> Tensor:
    """What the squared error grows by if the decoder gets a channel's mean instead, `(M,)`.

    At quality 50, of rounded latents: without rounding, channels that are nearly always 0 hold what
    the synthesis has never seen.
    """
    x = patches.draw(torch.rand(ABLATED, 4, generator=torch.Generator().manual_seed(1)), 256)
    quality = torch.full((ABLATED,), 50.0)
    y_hat = network.code(network.g_a(x, quality), quality)[0] * network.inverse_gain(quality).exp()
    error = (network.g_s(y_hat, quality) - x).square().mean()
    found = []
    for channel in range(y_hat.shape[1]):
        without = y_hat.clone()
        without[:, channel] = y_hat[:, channel].mean()
        found.append((network.g_s(without, quality) - x).square().mean() - error)
    return torch.stack(found)


def energy_score(y: Tensor) -> Tensor:
    """What data say: the variance of each channel over cached latents."""
    return y.transpose(0, 1).flatten(1).var(1)


def batches(count: int, order: Sequence[int], data: tuple[Tensor, Tensor]) -> Iterator[Any]:
    """`count` samples in batches, their channels in `order`, the same each time."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(count // BATCH):
        chosen = torch.randint(len(data[0]), (BATCH,), generator=generator)
        yield data[0][chosen][:, list(order)], data[1][chosen]


def train(code: Code, parameters: list[nn.Parameter], samples: Iterator[Any], steps: int) -> None:
    """Make the bits fewer, every rate weighing about the same."""
    optimiser = torch.optim.Adam(parameters, lr=LR)
    for step, (y, quality) in enumerate(samples):
        for group in optimiser.param_groups:
            group["lr"] = LR * (1 - step / steps)
        bits = code(y, quality)[1] / (65536 * (0.0005 * 320 ** (quality / 100)).sqrt())
        optimiser.zero_grad()
        bits.mean().backward()
        optimiser.step()


@torch.no_grad()
def curve(network: IscsNetwork, code: Code, images: Sequence[Tensor]) -> list[list[float]]:
    """Mean bpp and mean dB of the images at each quality."""
    points = []
    for value in QUALITIES:
        quality, rows = torch.tensor([value]), []
        for x in images:
            y_hat, bits = code(network.g_a(x, quality), quality)
            x_hat = network.g_s(y_hat * network.inverse_gain(quality).exp(), quality)
            mse = (x_hat.clamp(0, 1) - x).square().mean()
            rows.append([bits.item() / (x.shape[2] * x.shape[3]), -10 * mse.log10().item()])
        points.append(np.mean(rows, axis=0).tolist())
    return points


@torch.no_grad()
def milliseconds(code: Code, network: IscsNetwork) -> float:
    """Median time of the entropy model's walk over a 768x512 image's latents, on one thread."""
    y, quality = torch.randn(1, network.config.M, 32, 48), torch.tensor([50.0])
    times = []
    for _ in range(7):
        started = time.perf_counter()
        code(y, quality)
        times.append(1000 * (time.perf_counter() - started))
    return round(float(np.median(times)), 1)


def main() -> None:
    """Train, measure, write one JSON file and print it as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("train", type=Path)
    parser.add_argument("kodak", type=Path)
    parser.add_argument("--samples", type=int, default=6400)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/iscs.json")
    options = parser.parse_args()
    torch.set_num_threads(1)

    entry = SHIPPED.find("iscs")
    shipped = SHIPPED.load(entry)
    assert isinstance(shipped, Iscs)
    base = plain(shipped.thaw())
    patches = Patches(read_photos([options.train]), torch.device("cpu"))
    data = cached_latents(base, patches, count=CACHED, batch=BATCH)
    images = [torch.from_numpy(photo)[None].float() / 255 for photo in read_photos([options.kodak])]

    truth = damage(base, patches)
    M = base.config.M
    scores = {
        "natural": -torch.arange(float(M)),
        "random": torch.rand(M, generator=torch.Generator().manual_seed(3)),
        "data energy": energy_score(data[0]),
        "ISCS strict": strict_score(base),
        "ISCS product": product_score(base),
    }
    result: dict[str, Any] = {
        "command": f"python benchmarks/iscs.py TRAIN KODAK --samples {options.samples}",
        **origin(),
        "weights": entry.sha256,
        "images": len(images),
        "core": CORE,
        "groups": GROUPS,
        "samples": options.samples,
        "rows": [],
    }
    anchor = None
    for name, score in scores.items():
        order, sizes = partition(score, correlations(base), core=CORE, groups=GROUPS)
        if name == "natural":  # the groups as well as the order are the channels' own
            order = tuple(range(M))
        correlation = float(spearmanr(score, truth).statistic)
        share = float(truth[list(order[:CORE])].sum() / truth.sum())
        ordered = copy.deepcopy(base)
        reorder(ordered, order)
        torch.manual_seed(4)
        grouped = regroup(ordered, sizes)
        for kind in ("parallel", "serial"):
            torch.manual_seed(5)
            network = copy.deepcopy(grouped).requires_grad_(False)
            serial = Serial(network)
            moved = list(network.entropy_parameters())
            code: Code = network.code
            if kind == "serial":
                moved += serial.parameters()

                def code(y: Tensor, quality: Tensor, n=network, s=serial) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def,misc]
                    return s.code(n, y, quality)

            for parameter in moved:
                parameter.requires_grad_(True)
            steps = options.samples // BATCH
            train(code, moved, batches(options.samples, order, data), steps)
            points = curve(network, code, images)
            anchor = anchor or points
            row = {
                "order": name,
                "context": kind,
                "bd_rate": round(bd_rate(anchor, points), 2),
                "passes": 1 + 4 + (1 if kind == "parallel" else GROUPS),
                "walk_ms": milliseconds(code, network),
                "spearman": round(correlation, 3),
                "core_share_of_damage": round(share, 3),
                "curve": points,
            }
            result["rows"].append(row)
            print({key: value for key, value in row.items() if key != "curve"}, flush=True)
            options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

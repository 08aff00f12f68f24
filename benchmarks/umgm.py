"""What each part of `umgm` is worth, and what its codes look like.

    python benchmarks/umgm.py TRAIN KODAK [--samples 3200] [--part ablation] [--out FILE]

Two tables. `ablation`: on the transforms of `iscs/base`, which stay, and latents cached from TRAIN,
each row trains for the same samples in the same order, with one part less than the row before it.
Measured on every third image of KODAK by the training's own count: no table is fitted, nothing is
written. `codes`: symbols that the shipped weights choose for all of KODAK, against codes of fixed
length and against tables of zero order made from these very symbols. Knows no file format.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from latents import cached_latents
from torch import Tensor, nn
from torch.nn.utils import parametrize

from codec.benchmark.provenance import origin
from codec.datasets import read_photos
from codec.entropy import BitCounter
from codec.metrics import bd_rate
from codec.models.base import Halo, TileGeometry
from codec.models.iscs import Iscs
from codec.models.umgm import Umgm, UmgmConfig, UmgmNetwork, mixture
from codec.models.umgm.mixture import LEVEL_UNIT, Bank
from codec.models.umgm.network import Coded
from codec.models.umgm.start import start_from_iscs
from codec.training.patches import Patches
from codec.weights import SHIPPED

BATCH, LR = 8, 1e-3
CACHED = 768  # patches of 256x256, each at a rate of its own
QUALITIES = (5, 25, 50, 75, 95)

Code: TypeAlias = Callable[[Tensor, Tensor], Coded]


class Linear(nn.Module):
    """SimVQ: a frozen random matrix, all of which one learned linear layer of each group moves."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.diag_embed(scale))
        self.bias = nn.Parameter(torch.zeros_like(scale))

    def forward(self, frozen: Tensor) -> Tensor:
        """`(G, K, d)` to `(G, K, d)`."""
        return frozen @ self.weight.transpose(1, 2) + self.bias[:, None]


def banks(network: UmgmNetwork) -> Iterator[Bank]:
    """All of the network's."""
    for part in (network.z, network.core, network.rest):
        yield from (piece.bank for piece in part.pieces())


def randomise(network: UmgmNetwork, *, sim: bool) -> None:
    """Codewords from a Gaussian as wide as the latents; with `sim`, frozen behind linear layers."""
    generator = torch.Generator().manual_seed(3)
    for bank in banks(network):
        scale = bank.spread.detach().exp()
        noise = torch.randn(bank.codewords.shape, generator=generator)
        with torch.no_grad():
            bank.codewords.copy_(noise if sim else noise * scale[:, None])
        if sim:
            bank.codewords.requires_grad_(False)
            parametrize.register_parametrization(bank, "codewords", Linear(scale))


def isotropic(network: UmgmNetwork) -> None:
    """One spread for all dimensions of a group, which does not learn."""
    for bank in banks(network):
        bank.spread.requires_grad_(False)
        with torch.no_grad():
            bank.spread.copy_(bank.spread.mean(1, keepdim=True).expand_as(bank.spread))


def unconditional(network: UmgmNetwork) -> Code:
    """No z, no means: every group has one table, of zero order."""

    def code(y: Tensor, quality: Tensor) -> Coded:
        y = y * network.gain(quality).exp()
        core = network.core.channels
        n, _, h, w = y.shape
        found = [
            part(own, own.new_full((n, part.groups, h, w), float(LEVEL_UNIT)))
            for part, own in ((network.core, y[:, :core]), (network.rest, y[:, core:]))
        ]
        y_hat = torch.cat([part.x_hat for part in found], dim=1)
        bits, error = (sum(pair) for pair in zip(*((f.bits, f.error) for f in found), strict=True))
        return Coded(y_hat, bits, error, torch.zeros_like(error))

    return code


@contextmanager
def nearest_alone() -> Iterator[None]:
    """Within, a codeword is chosen by its error, whatever its bits."""
    own = mixture.nearest

    def nearest(x: Tensor, codewords: Tensor, bits: Tensor, levels: Tensor) -> Tensor:
        return own(x, codewords, torch.zeros_like(bits), levels)

    mixture.nearest = nearest
    try:
        yield
    finally:
        mixture.nearest = own


def train(network: UmgmNetwork, code: Code, data: tuple[Tensor, Tensor], samples: int) -> None:
    """Make bits and errors fewer, every rate weighing about the same."""
    moved = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(moved, lr=LR)
    generator = torch.Generator().manual_seed(2)
    steps = samples // BATCH
    for step in range(steps):
        chosen = torch.randint(len(data[0]), (BATCH,), generator=generator)
        y, quality = data[0][chosen], data[1][chosen]
        for group in optimiser.param_groups:
            group["lr"] = LR * (1 - step / steps)
        coded = code(y, quality)
        cost = coded.bits + coded.error + coded.error_z
        weight = 256 * y.shape[2] * y.shape[3] * network.config.lmbda_of(quality).sqrt()
        optimiser.zero_grad()
        (cost / weight).mean().backward()
        nn.utils.clip_grad_norm_(moved, 1.0)
        optimiser.step()


@torch.no_grad()
def curve(network: UmgmNetwork, code: Code, images: Sequence[Tensor]) -> list[list[float]]:
    """Mean bpp and mean dB of the images at each quality."""
    points = []
    for value in QUALITIES:
        quality, rows = torch.tensor([float(value)]), []
        for x in images:
            coded = code(network.g_a(x, quality), quality)
            x_hat = network.g_s(coded.y_hat * network.inverse_gain(quality).exp(), quality)
            mse = (x_hat.clamp(0, 1) - x).square().mean()
            rows.append([coded.bits.item() / (x.shape[2] * x.shape[3]), -10 * mse.log10().item()])
        points.append(np.mean(rows, axis=0).tolist())
    return points


def start() -> UmgmNetwork:
    """What training starts from."""
    trained = SHIPPED.load(SHIPPED.find("iscs/base"))
    assert isinstance(trained, Iscs)
    config = UmgmConfig()
    torch.manual_seed(1)
    network = UmgmNetwork(config)
    start_from_iscs(network, trained.thaw().respan(config.lmbda_min, config.lmbda_max))
    return network


def ablation(folder: Path, images: Sequence[Tensor], samples: int) -> Iterator[dict[str, Any]]:
    """The rows, one after the other; BD-rates against the first."""
    base = start()
    patches = Patches(read_photos([folder]), torch.device("cpu"))
    data = cached_latents(base, patches, count=CACHED, batch=BATCH)
    anchor = None
    for name, parts in (
        ("all of it", "ecvq cascade covariance integers"),
        (
            "less the start from the likeliest integers: Gaussian codewords",
            "ecvq cascade covariance",
        ),
        ("less covariance: one spread a group, which does not learn", "ecvq cascade"),
        ("less the cascade: no z, no means, one table of zero order a group", "ecvq"),
        ("the same with SimVQ: frozen codewords behind a linear layer", "ecvq sim"),
        ("less ECVQ, with SimVQ: the nearest codeword", "sim"),
        ("less both: plain VQ", ""),
    ):
        has = parts.split()
        torch.manual_seed(5)
        network = copy.deepcopy(base).requires_grad_(False)
        moved = network.entropy_parameters()
        if "cascade" not in has:
            moved = [p for bank in banks(network) for p in bank.parameters()]
        for parameter in moved:
            parameter.requires_grad_(True)
        if "integers" not in has:
            randomise(network, sim="sim" in has)
        if "covariance" not in has:
            isotropic(network)
        code = network.code if "cascade" in has else unconditional(network)
        if "ecvq" in has:
            train(network, code, data, samples)
            points = curve(network, code, images)
        else:
            with nearest_alone():
                train(network, code, data, samples)
                points = curve(network, code, images)
        anchor = anchor or points
        yield {"row": name, "bd_rate": round(bd_rate(anchor, rising(points)), 1), "curve": points}


def rising(points: Sequence[list[float]]) -> Sequence[list[float]]:
    """The points before quality costs decibels: where codewords do not reach as far as latents."""
    end = next((k for k in range(1, len(points)) if points[k][1] <= points[k - 1][1]), len(points))
    return points[:end]


def codes(images: Sequence[Tensor]) -> Iterator[dict[str, Any]]:
    """What the shipped weights choose, at each quality: use, perplexity and bits."""
    codec = SHIPPED.load(SHIPPED.find("umgm"))
    assert isinstance(codec, Umgm)
    coding, used = codec.coding, set()
    sizes = np.concatenate([book.sizes for book in (coding.z, coding.core, coding.rest)])
    for quality in QUALITIES:
        counts: list[Counter[int]] = [Counter() for _ in sizes]
        real = fixed = pixels = 0.0
        for x in images:
            geometry = TileGeometry(x.shape[2], x.shape[3], quality)
            symbols = codec.analyse(x, geometry, Halo())
            counter = BitCounter()
            codec.traverse(counter, symbols, geometry)
            real += counter.bits
            pixels += x.shape[2] * x.shape[3]
            groups = [*np.split(symbols["z"], len(coding.z.sizes))]
            groups += np.split(symbols["y"], len(sizes) - len(groups))
            for number, own in enumerate(groups):
                counts[number].update(own.tolist())
                fixed += len(own) * float(np.ceil(np.log2(sizes[number])))
        zero_order, perplexities = 0.0, []
        for number, count in enumerate(counts):
            used |= {(number, code) for code in count}
            total = np.array(list(count.values()), float)
            entropy = float(-(total * np.log2(total / total.sum())).sum())
            zero_order += entropy
            perplexities.append(2 ** (entropy / total.sum()))
        yield {
            "quality": quality,
            "bpp": round(real / pixels, 4),
            "fixed_length_bpp": round(fixed / pixels, 4),
            "zero_order_bpp": round(zero_order / pixels, 4),
            "median_perplexity": round(float(np.median(perplexities)), 2),
        }
    yield {"codewords": int(sizes.sum()), "used_percent": round(100 * len(used) / sizes.sum(), 2)}


def main() -> None:
    """Train, measure, write one JSON file and print it as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("train", type=Path)
    parser.add_argument("kodak", type=Path)
    parser.add_argument("--samples", type=int, default=3200)
    parser.add_argument("--part", choices=("codes", "ablation"), help="the one to measure again")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/umgm.json")
    options = parser.parse_args()
    torch.set_num_threads(1)

    images = [torch.from_numpy(photo)[None].float() / 255 for photo in read_photos([options.kodak])]
    parts: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "codes": lambda: codes(images),
        "ablation": lambda: ablation(options.train, images[::3], options.samples),
    }
    result: dict[str, Any] = json.loads(options.out.read_text()) if options.part else {}
    for part in [options.part] if options.part else list(parts):
        command = f"python benchmarks/umgm.py TRAIN KODAK --samples {options.samples}"
        result[part] = {"command": command, **origin(), "rows": []}
        for row in parts[part]():
            result[part]["rows"].append(row)
            print({key: value for key, value in row.items() if key != "curve"}, flush=True)
            options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

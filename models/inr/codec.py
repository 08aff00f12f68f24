"""`inr`, the family object: a picture's networks and latents. Knows integers and pixels, no file.

Symbols of a tile: `networks`, what is added to a prior, and `latents`, all grids in the order of
coding, each flattened. The networks are decoded first; those that predict latents run in integers,
and the latents follow, each predicted from what is decoded before it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import final

import numpy as np
import torch
from torch import Tensor

from codec.entropy import AbstractCoder, BitCounter, Method, Tables
from codec.models.base import SHORT, AbstractFamily, Halo, Search, Symbols, TileGeometry
from codec.models.frozen import tables_of_tensors, tensors_of_tables
from codec.models.inr import fused, network
from codec.models.inr.latents import LATENT_MAX, LATENT_MIN, LatentModel
from codec.models.inr.layout import HYPER_LEVELS, grid_sizes, preset_called, shapes
from codec.models.inr.network import fresh, upsample
from codec.models.inr.parameters import Prior, codes, floats, integers, prior_unit
from codec.models.inr.steps import choose_steps
from codec.models.inr.syntax import Networks, code_networks
from codec.models.inr.tables import PHASES, PRECISION, PRIOR, SCALES
from codec.models.layers import QUALITY_MAX

__all__ = ["Inr", "evaluations_after", "iterations_of", "lmbda_of"]


SMALL = 1 << 14  # pixels
# Pixels by what a bit is worth, from which on a preset's gain is more than its networks' bits.
PAYS_FROM = {"lop": 0, "mop": 1.3e7, "hop": 1.2e8}
ITERATIONS = (120, 10_000)  # of efforts 0 and 9
LMBDA = (3e-2, 8e-5)  # at qualities 0 and 100
EVALUATIONS = (40, 1000)  # of what networks cost as they are rounded, at least and at most


def lmbda_of(quality: int) -> float:
    """What a bit is worth, in squared errors of pixels in [0, 1], at a quality of 0 to 100."""
    return LMBDA[0] * math.pow(LMBDA[1] / LMBDA[0], quality / QUALITY_MAX)


def iterations_of(effort: int) -> int:
    """Steps of a fit: 120 take some 20 seconds of two cores for 768 x 512 pixels."""
    return round(ITERATIONS[0] * math.pow(ITERATIONS[1] / ITERATIONS[0], effort / 9))


def evaluations_after(steps: int) -> int:
    """How often costs are looked at as networks are rounded: a twentieth of the fit's time."""
    return min(max(EVALUATIONS[0], steps // 5), EVALUATIONS[1])


@final
class Inr(AbstractFamily):
    """An overfitted codec: what ships are priors and tables, all else is in the stream."""

    stride = 1
    halo = 0
    tile_multiple = 1
    streams = ("networks", "latents")
    layers = 0

    def __init__(self, priors: Sequence[Prior], latents: Tables, side: Tables) -> None:
        """What both sides know.

        Args:
            priors: at least one; a stream says which.
            latents: those of `laplace_tables`.
            side: those of `side_tables` for so many priors.

        Raises:
            ValueError: the tables are not for these.
        """
        if len(latents.sizes) != PHASES * SCALES or side.sizes[PRIOR] != len(priors) + 1:
            raise ValueError(f"tables: not those of {len(priors)} priors")
        self.priors = tuple(priors)
        self.tables = latents
        self._side = side
        self._device = torch.device("cpu")

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Inr:
        """See `AbstractFamily.load`; the inverse of `tensors` and `metadata`."""
        priors = []
        described = zip(metadata["presets"].split(), metadata["lambdas"].split(), strict=True)
        for number, (name, lmbda) in enumerate(described):
            values = {}
            for tensor in shapes(preset_called(name)):
                value = tensors[f"prior.{number}.{tensor}"].numpy().astype(np.float64)
                values[tensor] = value * prior_unit(tensor) if codes(tensor) else value
            priors.append(Prior(preset_called(name), float(lmbda), values))
        tables = (tables_of_tensors(f"{name}.", tensors, PRECISION) for name in ("latents", "side"))
        return cls(priors, *tables)

    def tensors(self) -> dict[str, Tensor]:
        """What a weight file holds."""
        found = {
            **tensors_of_tables("latents.", self.tables),
            **tensors_of_tables("side.", self._side),
        }
        for number, prior in enumerate(self.priors):
            for name, value in prior.values.items():
                own = torch.from_numpy(value / prior_unit(name) if codes(name) else value)
                found[f"prior.{number}.{name}"] = own.to(
                    torch.int32 if codes(name) else torch.float32
                )
        return found

    def metadata(self) -> dict[str, str]:
        """The rest of it: the preset and the lambda of each prior."""
        return {
            "presets": " ".join(prior.preset.name for prior in self.priors),
            "lambdas": " ".join(str(prior.lmbda) for prior in self.priors),
        }

    def to(self, device: torch.device) -> Inr:
        """The same codec, whose floats are computed on `device`."""
        moved = copy.copy(self)
        moved._device = device
        return moved

    # ---- encoder only

    @fused.on_all_cores()
    def analyse(
        self, x: Tensor, geometry: TileGeometry, halo: Halo, search: Search = SHORT
    ) -> Symbols:
        """Fit networks and latents to one tile; see `AbstractFamily.analyse`."""
        from codec.models.inr.overfit import Report, overfit  # no decoder needs it

        def watch(report: Report) -> None:
            psnr = -10 * math.log10(float(report.error) / x[0, 0].numel() + 1e-10)
            bpp = float(report.bits) / x[0, 0].numel()
            search.watch(report.share, f"{psnr:.2f} dB, {bpp:.3f} bits per pixel")

        x = x[:, :, halo.top :, halo.left :][:, :, : geometry.height, : geometry.width]
        x, lmbda = x.to(self._device), lmbda_of(geometry.quality)
        number = self._prior_for(lmbda, x[0, 0].numel())
        prior = self.priors[number]
        start = floats(prior.values, self._device)
        if not any(value.any() for value in prior.values.values()):  # nothing to follow downhill
            start = fresh(prior.preset, 1, torch.Generator().manual_seed(0))
        # Networks that move cost some hundred bytes, which a small picture may not be worth.
        ways = (True, False) if x[0, 0].numel() <= SMALL else (True,)
        found = []
        for learn in ways:
            fit = overfit(
                x,
                torch.tensor([lmbda]),
                start,
                iterations=iterations_of(search.effort),
                seconds=search.seconds / len(ways),
                learn=learn,
                interrupted=search.interrupted,
                watch=watch,
            )
            stopped = search.interrupted is not None and search.interrupted.is_set()
            symbols = self.written(
                x,
                fit.grids,
                fit.parameters,
                prior=number,
                lmbda=lmbda,
                evaluations=EVALUATIONS[0] if stopped else evaluations_after(fit.steps),
            )
            found.append(symbols)
        return min(found, key=lambda symbols: self._cost(x, symbols, geometry, lmbda))

    def _prior_for(self, lmbda: float, pixels: int) -> int:
        """The nearest by lambda of the largest networks that are worth their bits."""
        numbers = range(len(self.priors))
        presets = [prior.preset for prior in self.priors]
        worth = [n for n in numbers if PAYS_FROM[presets[n].name] <= pixels / lmbda] or numbers
        largest = max((presets[n] for n in worth), key=lambda preset: preset.width)
        alike = (n for n in worth if presets[n] == largest)
        return min(alike, key=lambda n: abs(math.log(self.priors[n].lmbda / lmbda)))

    def _cost(self, x: Tensor, symbols: Symbols, geometry: TileGeometry, lmbda: float) -> float:
        """What was minimised, of real bits and of the decoder's pixels."""
        counter = BitCounter()
        self.traverse(counter, symbols, geometry)
        x_hat = self.dequantise(symbols, geometry).clamp(0, 1)
        return float((x_hat - x).square().mean(1).sum()) + lmbda * counter.bits

    @torch.no_grad()
    def written(
        self,
        x: Tensor,
        grids: Sequence[Tensor],
        networks: Mapping[str, Tensor],
        *,
        prior: int,
        lmbda: float,
        evaluations: int = EVALUATIONS[0],
    ) -> Symbols:
        """The symbols of a fitted picture: its latents as they are, its networks in chosen steps.

        Args:
            x: `(1, 3, H, W)` pixels in [0, 1].
            grids: rounded latents in the order of `GRIDS`, `(1, h, w)` each.
            networks: fitted, `(1, ...)` each.
            prior: number of the one to start from; of the networks' preset.
            lmbda: what a bit costs in squared errors, those of a pixel averaged over its channels.
            evaluations: of rate or distortion, in the choice of steps.
        """
        grids = [grid.clamp(LATENT_MIN, LATENT_MAX) for grid in grids]
        stack = grids[len(HYPER_LEVELS) :]
        quick = _quick(x.device)

        def distortion(networks: Mapping[str, Tensor]) -> float:
            x_hat = quick.synthesise(upsample(stack, networks), networks).clamp(0, 1)
            return float((x_hat - x).square().mean(1).sum())

        deltas = choose_steps(
            {name: value[0].double().cpu().numpy() for name, value in networks.items()},
            self.priors[prior],
            rate=lambda networks: lmbda * float(quick.bits(grids, networks)),
            distortion=distortion,
            bits_worth=lmbda,
            tables=self.tables,
            device=x.device,
            evaluations=evaluations,
        )
        flat = [grid.cpu().numpy().astype(np.int32).reshape(-1) for grid in grids]
        empty = [not grid.any() for grid in flat]
        symbols = Networks(prior, empty, deltas).symbols()
        return {"networks": symbols, "latents": np.concatenate(flat)}

    # ---- both directions

    def traverse(
        self, coder: AbstractCoder, symbols: Symbols | None, geometry: TileGeometry
    ) -> Symbols:
        """Code the networks, then the latents of all grids that are not empty."""
        given = (None, None) if symbols is None else (symbols["networks"], symbols["latents"])
        stream = coder.open("networks", Method.RANGE)
        networks = code_networks(stream, given[0], self.priors, self.tables, self._side)

        said = Networks.read(networks, self.priors)
        prior = self.priors[said.prior]
        sizes = grid_sizes(geometry.height, geometry.width)
        coded = [not empty for empty in said.empty]
        codings = integers(said.deltas.values(prior))
        model = LatentModel(prior.preset, codings, self.tables, sizes, coded)
        where = np.repeat(coded, [h * w for h, w in sizes])
        latents = np.zeros(len(where), np.int32)
        stream = coder.open("latents", Method.RANS)
        latents[where] = stream.code_causal(None if given[1] is None else given[1][where], model)
        return {"networks": networks, "latents": latents}

    # ---- decoder only

    @torch.inference_mode()
    def dequantise(self, symbols: Symbols, geometry: TileGeometry) -> Tensor:
        """Symbols of one tile to its pixels, `(1, 3, height, width)`, about [0, 1]."""
        said = Networks.read(symbols["networks"], self.priors)
        networks = floats(said.deltas.values(self.priors[said.prior]), self._device)
        latents = torch.from_numpy(symbols["latents"]).to(self._device, torch.float32)
        sizes = grid_sizes(geometry.height, geometry.width)
        flat = torch.split(latents, [h * w for h, w in sizes])
        grids = [part.reshape(1, *size) for part, size in zip(flat, sizes, strict=True)]
        stack = upsample(grids[len(HYPER_LEVELS) :], networks)
        x_hat: Tensor = _quick(self._device).synthesise(stack, networks)
        return x_hat

    @torch.inference_mode()
    def synthesise(self, y_hat: Tensor, quality: int) -> Tensor:
        """The pixels that `dequantise` gave, as they are: no tile sees another."""
        return y_hat


def _quick(device: torch.device) -> ModuleType:
    """Where `bits` and `synthesise` are as fast as they can be."""
    return fused if device.type == "cpu" else network

"""CompressAI's weights to a codec of ours: fold, order, round to integers. Knows no file.

Runs once, at import; floats are free here, because what codes is shipped as integers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from codec.entropy import Tables, gaussian_tables
from codec.errors import ModelError, UsageError
from codec.models.compressai.codec import HYPER, Coding, CompressAI
from codec.models.compressai.network import ARCHITECTURES, Config, Network
from codec.models.compressai.scales import FixedScales

__all__ = ["check_architecture", "freeze"]

PRECISION = 16
SERIAL = ("mbt2018", "mbt2018-vbr")
SERIAL_KINDS = ("cheng2020", "elic2022")
REASON = (
    "its context model makes tables from floats of latents that were decoded before, one after "
    "another, so a stream would decode only where every float is the same to the last bit"
)
PARTS = {"g_a", "g_s", "entropy_bottleneck"}
HYPER_PARTS = {"h_a", "h_s", "gaussian_conditional"}

LAYERS = 4  # the core and three groups, a quarter of the channels each

REACH = 2048  # symbols on each side of a median that a table may have
TAIL = 2.0**-17
# As far out as CompressAI's: a latent that its scale is wrong for is cheaper there than escaped.
GAUSSIAN_TAIL = 2.0**-28
PEDESTAL = 2.0**-36  # of CompressAI's parameters that must not be negative: the offset's square
BETA_MIN = 1e-6


def check_architecture(arch: str) -> None:
    """Raise a UsageError unless `arch` can be imported; it says why not."""
    if arch in SERIAL or arch.startswith(SERIAL_KINDS):
        raise UsageError(f"arch: {arch} cannot be imported: {REASON}")
    if arch not in ARCHITECTURES:
        raise UsageError(f"arch: want one of {', '.join(ARCHITECTURES)}, got {arch!r}")


@torch.no_grad()
def freeze(state: Mapping[str, Tensor], arch: str) -> CompressAI:
    """The codec of a state dict.

    Args:
        state: CompressAI's weights by its names, of any release from 1.0 on; `module.` in front of
            all names, and tables that were computed from the weights, are ignored.
        arch: one of `ARCHITECTURES`.

    Raises:
        UsageError: `arch`, or the network of the weights, cannot be imported.
        ModelError: the weights are not of `arch`.
    """
    check_architecture(arch)
    given = {_modern(name): value.detach().cpu() for name, value in state.items()}
    if any(name.startswith(("context_prediction.", "entropy_parameters.")) for name in given):
        raise UsageError(f"the checkpoint has a serial context: {REASON}")
    try:
        return _frozen(given, arch)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"the checkpoint is not of {arch}: {error}") from error


def _frozen(given: Mapping[str, Tensor], arch: str) -> CompressAI:
    architecture = ARCHITECTURES[arch]
    parts = PARTS | HYPER_PARTS if architecture.hyper else PARTS
    for name, value in given.items():
        if name.partition(".")[0] not in parts:
            raise ValueError(f"it has {name}, too")
        if not value.isfinite().all():
            raise ValueError(f"{name} is not finite")
    N, M = len(given["g_a.0.weight"]), len(given["g_a.6.weight"])
    medians = given["entropy_bottleneck.quantiles"][:, 0, 1]
    prior = _prior(given, medians)
    spread = _spread_by_scales(given, arch, medians) if architecture.hyper else _spread(prior)
    if spread.shape != (M,):
        raise ValueError(f"y has {M} channels, its tables are for {len(spread)}")
    order = spread.argsort(descending=True, stable=True)
    groups = tuple(len(part) for part in order.tensor_split(min(LAYERS, M)))
    with torch.random.fork_rng(devices=[]):
        network = Network(Config(arch, N, M, groups))

    transforms = {k: v for k, v in given.items() if k.split(".")[0] in ("g_a", "g_s", "h_a", "h_s")}
    values = _folded(transforms)
    scale_weights = []
    if architecture.hyper:
        last = ("h_s.4.weight", "h_s.4.bias")
        rows = order + M if architecture.means else order
        scale_weights = [
            *((values[f"h_s.{k}.weight"], values[f"h_s.{k}.bias"]) for k in (0, 2)),
            (values[last[0]][order], values[last[1]][order]),
        ]
        _check_sizes(scale_weights, N, M)
        values |= {name: values[name][rows] for name in last}
        if not architecture.means:
            values = {k: v for k, v in values.items() if not k.startswith("h_s.")}
    values["g_s.0.weight"] = values["g_s.0.weight"][order]
    values["order"] = order
    if not architecture.hyper:
        medians = medians[order]
        prior = [prior[channel] for channel in order.tolist()]
    values["medians"] = medians
    network.load_state_dict(values)

    pmfs, offsets = zip(*prior, strict=True)
    coding = Coding(Tables.from_pmfs(pmfs, offsets, PRECISION))
    if architecture.hyper:
        scales = _scale_table(given)
        coding = Coding(
            coding.prior,
            gaussian_tables(scales.double().numpy(), PRECISION, GAUSSIAN_TAIL),
            FixedScales.freeze(
                scale_weights, leaky=architecture.means, medians=medians, scales=scales
            ),
        )
    return CompressAI(network, coding)


def _modern(name: str) -> str:
    """CompressAI has named the bottleneck's lists in three ways; ours is the last."""
    name = name.removeprefix("module.")
    found = re.fullmatch(r"entropy_bottleneck\._?(matri|bias|factor)\D*(\d)", name)
    if found is None:
        return name
    plural = {"matri": "matrices", "bias": "biases", "factor": "factors"}[found[1]]
    return f"entropy_bottleneck.{plural}.{found[2]}"


def _check_sizes(layers: list[tuple[Tensor, Tensor]], N: int, M: int) -> None:
    """Raise a ValueError unless h_s leads from N to M channels; the float half is checked alone."""
    inner = [len(bias) for _, bias in layers]
    want = [(N, inner[0], 5, 5), (inner[0], inner[1], 5, 5), (M, inner[1], 3, 3)]
    got = [tuple(weight.shape) for weight, _ in layers]
    if got != want:
        raise ValueError(f"h_s: want weights {want}, got {got}")


# ---- parameters that are not what they mean


def _folded(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Beta and gamma of the normalisations as plain numbers; all else as it is.

    CompressAI stores the root of each number plus a pedestal, and bounds it from below.
    """
    found = {}
    for name, value in values.items():
        if "_reparam." in name:
            continue
        least = {"beta": BETA_MIN, "gamma": 0.0}.get(name.rpartition(".")[2])
        if least is not None:
            pedestal = values.get(f"{name}_reparam.pedestal", torch.tensor([PEDESTAL]))
            bound = values.get(
                f"{name}_reparam.lower_bound.bound", torch.tensor([math.sqrt(least + PEDESTAL)])
            )
            value = torch.max(value, bound) ** 2 - pedestal
        found[name] = value.float()
    return found


def _scale_table(given: Mapping[str, Tensor]) -> Tensor:
    """The scales of the Gaussian tables, `(T,)`; 64 from 0.11 to 256 unless the weights say."""
    table = given.get("gaussian_conditional.scale_table", torch.zeros(0))
    if table.numel():
        return table
    return torch.exp(torch.linspace(math.log(0.11), math.log(256), 64))


# ---- the prior of z, or of y without z


def _prior(given: Mapping[str, Tensor], medians: Tensor) -> list[tuple[NDArray[np.float64], int]]:
    """Probabilities of the integers around each median, the escape last, and the first integer.

    The density of Ballé 2018, appendix 6.1, integrated over unit bins.
    """
    edges = torch.arange(-REACH - 0.5, REACH + 1.0, dtype=torch.float64)
    logits = _cumulative(given, medians.double()[:, None, None] + edges)[:, 0]
    lower, upper = logits[:, :-1], logits[:, 1:]
    # On the side of the median where both are small, their difference is accurate.
    sign = -torch.sign(lower + upper)
    inside = (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs().numpy()
    below, above = torch.sigmoid(lower).numpy(), torch.sigmoid(-upper).numpy()
    found = []
    for mass, left, right in zip(inside, below, above, strict=True):
        first = min(int((left <= TAIL).sum()), REACH) - 1
        last = 2 * REACH + 1 - min(int((right <= TAIL).sum()), REACH)
        first = max(first, 0)
        last = min(last, 2 * REACH)
        escape = left[first] + right[last]
        found.append((np.append(mass[first : last + 1], escape), first - REACH))
    return found


def _cumulative(given: Mapping[str, Tensor], values: Tensor) -> Tensor:
    """Logits of the cumulative distributions at `values` `(C, 1, K)`."""
    layers = sum(name.startswith("entropy_bottleneck.matrices.") for name in given)
    if not layers:
        raise KeyError("entropy_bottleneck.matrices.0")
    for number in range(layers):
        matrix = given[f"entropy_bottleneck.matrices.{number}"].double()
        values = functional.softplus(matrix) @ values
        values = values + given[f"entropy_bottleneck.biases.{number}"].double()
        if number < layers - 1:
            factor = given[f"entropy_bottleneck.factors.{number}"].double()
            values = values + torch.tanh(factor) * torch.tanh(values)
    if values.shape[1] != 1:
        raise ValueError("entropy_bottleneck: its last layer is missing")
    return values


# ---- the order of y's channels: how much they vary, in steps of the quantiser


def _spread(prior: Iterable[tuple[NDArray[np.float64], int]]) -> Tensor:
    """Variance of each channel under its own probabilities, `(M,)`."""
    found = []
    for pmf, first in prior:
        symbols = np.arange(first, first + len(pmf) - 1)
        inside = pmf[:-1] / pmf[:-1].sum()
        found.append(float(inside @ symbols**2 - (inside @ symbols) ** 2))
    return torch.tensor(found)


def _spread_by_scales(given: Mapping[str, Tensor], arch: str, medians: Tensor) -> Tensor:
    """Variance of each channel where z's symbols are 0, `(M,)`."""
    slope = 0.01 if ARCHITECTURES[arch].means else 0.0
    x = medians.float()[None, :, None, None].expand(-1, -1, 3, 3)
    for k in (0, 2):
        weight, bias = given[f"h_s.{k}.weight"], given[f"h_s.{k}.bias"]
        x = functional.conv_transpose2d(x, weight.float(), bias.float(), 2, 2, output_padding=1)
        x = functional.leaky_relu(x, slope)
    x = functional.conv2d(x, given["h_s.4.weight"].float(), given["h_s.4.bias"].float(), padding=1)
    scales = x.chunk(2, dim=1)[0] if ARCHITECTURES[arch].means else x
    middle = scales[0, :, HYPER : 2 * HYPER, HYPER : 2 * HYPER]
    return middle.clamp(min=0).square().mean((1, 2))

"""Random state dicts under the names that CompressAI gives its weights; none of its code.

Weights are such that latents spread over some integers and pixels stay about [0, 1].
"""

import math

import torch
from torch import Tensor

LAYERS = (1, 3, 3, 3, 3, 1)  # of the density of each channel
PEDESTAL = 2.0**-36


def state_of(arch: str, *, N: int = 8, M: int = 12, seed: int = 0) -> dict[str, Tensor]:
    """The weights of a random network of CompressAI's, without its tables."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def conv(name: str, shape: tuple[int, ...], fan_in: float, gain: float = 1.0) -> None:
        weight = torch.randn(shape, generator=generator)
        state[f"{name}.weight"] = gain * weight / math.sqrt(fan_in)
        outputs = shape[1] if name.startswith("g_s") or name in ("h_s.0", "h_s.2") else shape[0]
        state[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)

    def gdn(name: str) -> None:
        gamma = 0.05 * torch.eye(N) + 0.002 * torch.rand(N, N, generator=generator)
        beta = 1 + 0.2 * torch.rand(N, generator=generator)
        state[f"{name}.gamma"] = (gamma + PEDESTAL).sqrt()
        state[f"{name}.beta"] = (beta + PEDESTAL).sqrt()

    down, up = [3, N, N, N, M], [M, N, N, N, 3]
    for k in range(4):
        last = k == 3
        conv(f"g_a.{2 * k}", (down[k + 1], down[k], 5, 5), 25 * down[k], 1.2 if last else 2.0)
        conv(f"g_s.{2 * k}", (up[k], up[k + 1], 5, 5), 25 / 4 * up[k], 0.2 if k == 0 else 0.6)
        if not last:
            gdn(f"g_a.{2 * k + 1}")
            gdn(f"g_s.{2 * k + 1}")
    if arch != "bmshj2018-factorized":
        inner, outputs = (M * 3 // 2, 2 * M) if arch == "mbt2018-mean" else (N, M)
        first = M if arch == "mbt2018-mean" else N
        conv("h_a.0", (N, M, 3, 3), 9 * M)
        conv("h_a.2", (N, N, 5, 5), 25 * N)
        conv("h_a.4", (N, N, 5, 5), 25 * N, 2.0)
        conv("h_s.0", (N, first, 5, 5), 25 / 4 * N)
        conv("h_s.2", (first, inner, 5, 5), 25 / 4 * first)
        conv("h_s.4", (outputs, inner, 3, 3), 9 * inner, 1.5)
        state["h_s.4.bias"] += 7.0  # more than the spread of y
    _add_density(state, M if arch == "bmshj2018-factorized" else N, generator)
    return state


def _add_density(state: dict[str, Tensor], channels: int, generator: torch.Generator) -> None:
    """The piecewise monotone density of Ballé 2018, appendix 6.1, some integers wide."""
    for k in range(len(LAYERS) - 1):
        size = (channels, LAYERS[k + 1], LAYERS[k])
        start = math.log(math.expm1(1 / 8 ** (1 / 5) / LAYERS[k + 1]))
        state[f"entropy_bottleneck.matrices.{k}"] = start + 0.1 * torch.randn(
            size, generator=generator
        )
        state[f"entropy_bottleneck.biases.{k}"] = torch.rand(
            (channels, LAYERS[k + 1], 1), generator=generator
        ).sub(0.5)
        if k < len(LAYERS) - 2:
            state[f"entropy_bottleneck.factors.{k}"] = 0.3 * torch.randn(
                (channels, LAYERS[k + 1], 1), generator=generator
            )
    medians = torch.randn((channels, 1, 1), generator=generator)
    reach = torch.tensor([-10.0, 0.0, 10.0])
    state["entropy_bottleneck.quantiles"] = medians + reach

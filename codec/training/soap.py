"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., arXiv 2409.11321).

Knows parameters and gradients, no network. A weight of more than one row and column is a matrix
`(out, in * kh * kw)`; everything else (biases, depthwise filters) gets plain Adam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor, nn

__all__ = ["Soap"]

LEAST_SIDE = 16  # a shorter side is not worth a rotation: a 3x3 filter, the knots of the rates


@final
class Soap(torch.optim.Optimizer):
    """SOAP without weight decay.

    The first step only measures the gradients' covariance, as in the paper.

    Args:
        parameters: of floats.
        lr: step size, about that of Adam.
        betas: decay of the mean gradient and of its square, in the rotated coordinates.
        memory: decay of the covariances that give the rotation.
        frequency: steps between two updates of the rotation, by one power iteration and QR.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float] = (0.95, 0.98),
        memory: float = 0.98,
        frequency: int = 10,
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "memory": memory, "frequency": frequency, "eps": eps}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("SOAP takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        gradient = parameter.grad.float()  # type: ignore[union-attr]
        if gradient.dim() > 1:
            gradient = gradient.flatten(1)
        rotated = gradient.dim() > 1 and min(gradient.shape) >= LEAST_SIDE
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(gradient)
            state["square"] = torch.zeros_like(gradient)
            if rotated:
                for side, covariance in zip("lr", _covariances(gradient), strict=True):
                    state[f"covariance_{side}"] = covariance
                    state[f"basis_{side}"] = torch.linalg.eigh(covariance)[1].flip(1).contiguous()
                return
        state["step"] += 1
        beta, beta_square = group["betas"]
        state["mean"].lerp_(gradient, 1 - beta)
        mean = state["mean"]
        if rotated:
            left, right = state["basis_l"], state["basis_r"]
            gradient = left.T @ gradient @ right
            mean = left.T @ mean @ right
        state["square"].lerp_(gradient.square(), 1 - beta_square)
        spread = (state["square"] / (1 - beta_square ** state["step"])).sqrt() + group["eps"]
        update = mean / (1 - beta ** state["step"]) / spread
        if rotated:
            update = left @ update @ right.T
        parameter.add_(update.view_as(parameter), alpha=-group["lr"])
        if rotated:
            self._follow(parameter, state, group)

    def _follow(
        self, parameter: nn.Parameter, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        """Let the covariances follow the gradient and, now and then, the rotation follow them."""
        found = _covariances(parameter.grad.float().flatten(1))  # type: ignore[union-attr]
        for side, covariance in zip("lr", found, strict=True):
            state[f"covariance_{side}"].lerp_(covariance, 1 - group["memory"])
        if state["step"] % group["frequency"] == 0:
            for axis, side in enumerate("lr"):
                covariance, basis = state[f"covariance_{side}"], state[f"basis_{side}"]
                powered = covariance @ basis
                # Largest first; the squares move with their axes.
                order = (basis * powered).sum(0).argsort(descending=True)
                state["square"] = state["square"].index_select(axis, order)
                state[f"basis_{side}"] = torch.linalg.qr(powered[:, order])[0]


def _covariances(gradient: Tensor) -> tuple[Tensor, Tensor]:
    return gradient @ gradient.T, gradient.T @ gradient

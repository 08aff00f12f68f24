"""Muon: momentum, made orthogonal, for matrices; Adam for everything else.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); updates are scaled
to the size of Adam's as in Liu et al., arXiv 2502.16982, eq. 4. torch.optim.Muon takes matrices
alone, one after the other; here a 1x1 convolution is one, and those of one shape move together. A
step asks nothing of the host, so a CUDA graph can hold it. Knows parameters, no network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

__all__ = ["LEAST_SIDE", "Muon", "orthogonal"]

LEAST_SIDE = 16  # a shorter side makes no matrix: a 3x3 filter, the knots of the rates
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan's quintic: steep at 0, about 1 on [0.7, 1.2]
ROUNDS = 5


@final
class Muon(torch.optim.Optimizer):
    """Muon without weight decay.

    Args:
        parameters: of floats. A weight `(out, in, kh, kw)` is a matrix `(out, in kh kw)`.
        lr: step size, about that of Adam; a number or a tensor of one on the parameters' device.
        momentum: decay of the mean gradient of matrices.
        betas: decay of the mean gradient and of its square, of everything else.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float | Tensor,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            moved: list[Tensor] = [x for x in group["params"] if x.grad is not None]
            for parameter in moved:
                if not self.state[parameter]:
                    self.state[parameter]["mean"] = torch.zeros_like(parameter)
                    if not _matrix(parameter):
                        self.state[parameter]["square"] = torch.zeros_like(parameter)
                        self.state[parameter]["step"] = torch.zeros((), device=parameter.device)
            for shape, same in groupby(sorted(moved, key=_matrix), key=_matrix):
                if shape:
                    self._turn(list(same), group, shape)
                else:
                    self._adam(list(same), group)

    def _turn(self, matrices: list[Tensor], group: dict[str, Any], shape: tuple[int, ...]) -> None:
        gradients = [cast("Tensor", matrix.grad) for matrix in matrices]
        means = [self.state[matrix]["mean"] for matrix in matrices]
        torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, means, group["momentum"])  # Nesterov's
        updates = orthogonal(torch.stack([update.flatten(1) for update in ahead]))
        updates = updates * (0.2 * max(shape) ** 0.5 * group["lr"])
        views = [u.view_as(matrix) for u, matrix in zip(updates, matrices, strict=True)]
        torch._foreach_sub_(matrices, views)

    def _adam(self, others: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[other] for other in others]
        adamw(
            others,
            [cast("Tensor", other.grad) for other in others],
            [state["mean"] for state in states],
            [state["square"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
            fused=True,
        )


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices, roughly: singular values between 0.7 and 1.2.

    Five Newton-Schulz rounds in half precision; `(N, rows, columns)` in, the same in float32 out.
    """
    x = matrices.bfloat16()
    wide = x if x.shape[1] <= x.shape[2] else x.mT
    wide = wide / (wide.float().square().sum((1, 2), keepdim=True).sqrt() + 1e-7).bfloat16()
    a, b, c = COEFFICIENTS
    for _ in range(ROUNDS):
        gram = wide @ wide.mT
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return (wide if x.shape[1] <= x.shape[2] else wide.mT).float()


def _matrix(parameter: Tensor) -> tuple[int, ...]:
    """Rows and columns of the matrix that `parameter` is; empty if it is none.

    Only filters are: codewords `(G, K, d)` or their biases `(G, K)` are tables of single values.
    """
    if parameter.dim() != 4:
        return ()
    shape = (len(parameter), parameter[0].numel())
    return shape if min(shape) >= LEAST_SIDE else ()

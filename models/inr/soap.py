"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., arXiv 2409.11321).

For the networks of many pictures at once: a parameter is `(B, rows, ...)`, each of its B matrices
has bases of its own, and vectors get plain Adam. Knows parameters and gradients, no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

__all__ = ["Soap"]

BETA, BETA_SQUARE, BETA_COVARIANCE = 0.95, 0.95, 0.95
EPSILON = 1e-12


@final
@dataclass
class _State:
    """Of a parameter seen as matrices `(B, rows, columns)`; covariances and bases of both sides."""

    mean: Tensor
    square: Tensor
    covariances: list[Tensor] = field(default_factory=list)
    bases: list[Tensor] = field(default_factory=list)


@final
class Soap:
    """SOAP without weight decay. `step` asks nothing of the host, so a CUDA graph can hold it.

    Args:
        parameters: `(B, n)` vectors and `(B, rows, ...)` matrices.
        rate: a tensor of one number on their device.
    """

    def __init__(self, parameters: Sequence[Tensor], rate: Tensor) -> None:
        self._parameters, self._rate = list(parameters), rate
        self._steps = torch.zeros((), device=rate.device)
        self._states: list[_State] = []

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter against its gradient; the first step only looks at the gradients."""
        if not self._states:
            self._states = [_begun(_matrices(p.grad)) for p in self._parameters]
            return
        self._steps += 1
        unbiased = 1 - BETA**self._steps
        unbiased_square = 1 - BETA_SQUARE**self._steps
        for parameter, state in zip(self._parameters, self._states, strict=True):
            gradient = _matrices(parameter.grad)
            state.mean.lerp_(gradient, 1 - BETA)
            state.square.lerp_(_turned(gradient, state.bases).square(), 1 - BETA_SQUARE)
            spread = (state.square / unbiased_square).sqrt() + EPSILON
            # While bases stay, no update is above 1; after a turn, squares are another direction's.
            update = (_turned(state.mean, state.bases) / unbiased / spread).clamp(-1, 1)
            update = _turned_back(update, state.bases)
            parameter.sub_(update.view_as(parameter) * self._rate)
            for covariance, found in zip(state.covariances, _covariances(gradient), strict=False):
                covariance.lerp_(found, 1 - BETA_COVARIANCE)

    @torch.no_grad()
    def turn(self) -> None:
        """Let the bases follow the covariances by one power iteration; due every ten steps."""
        for state in self._states:
            for side, (covariance, basis) in enumerate(
                zip(state.covariances, state.bases, strict=True)
            ):
                powered = covariance @ basis
                # Largest first; the squares move with their axes.
                order = (basis * powered).sum(1).argsort(1, descending=True)
                axes = order[:, :, None] if side == 0 else order[:, None, :]
                state.square.copy_(state.square.gather(1 + side, axes.expand_as(state.square)))
                columns = order[:, None, :].expand_as(powered)
                found = torch.linalg.qr(powered.gather(2, columns))[0]
                whole = found.isfinite().all(2, keepdim=True).all(1, keepdim=True)
                basis.copy_(torch.where(whole, found, basis))  # on GPUs, no gradient gives no basis


def _matrices(gradient: Tensor | None) -> Tensor:
    """`(B, rows, columns)`; a vector is one column."""
    if gradient is None:
        raise ValueError("a parameter has no gradient")
    return gradient.flatten(2) if gradient.dim() > 2 else gradient[:, :, None]


def _begun(gradient: Tensor) -> _State:
    state = _State(torch.zeros_like(gradient), torch.zeros_like(gradient))
    if gradient.shape[2] > 1:
        state.covariances = _covariances(gradient)
        # In double precision: of matrices of low rank, LAPACK's float32 may find nothing.
        found = (torch.linalg.eigh(each.double())[1].flip(2) for each in state.covariances)
        state.bases = [each.float().contiguous() for each in found]
    return state


def _covariances(gradient: Tensor) -> list[Tensor]:
    return [gradient @ gradient.mT, gradient.mT @ gradient]


def _turned(x: Tensor, bases: Sequence[Tensor]) -> Tensor:
    return bases[0].mT @ x @ bases[1] if bases else x


def _turned_back(x: Tensor, bases: Sequence[Tensor]) -> Tensor:
    return bases[0] @ x @ bases[1].mT if bases else x

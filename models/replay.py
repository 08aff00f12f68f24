"""Work on a GPU that is launched once, as one CUDA graph. Knows no network."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

__all__ = ["Replay", "Work"]

WARM = 4  # calls one by one, for compiling and for what is made at a first call

Work = Callable[..., Tensor]


@final
class Replay:
    """Work on tensors of one shape that, once warm, is one CUDA graph.

    Args:
        work: takes and gives tensors on the GPU, and asks nothing of the host.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._graph: torch.cuda.CUDAGraph | None = None
        self._calls = 0

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Do the work."""
        if self._graph is None:
            self._calls += 1
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                output = self._work(*inputs)
            torch.cuda.current_stream().wait_stream(aside)
            if self._calls == WARM:
                self._inputs = [value.clone() for value in inputs]
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self._graph):  # nothing runs yet
                    self._output = self._work(*self._inputs)
            return output
        for held, value in zip(self._inputs, inputs, strict=True):
            held.copy_(value)
        self._graph.replay()
        return self._output

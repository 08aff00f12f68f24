"""Seconds of an iteration that fits a picture, plain and fused, and of its parts, in one run.

    python benchmarks/inr_speed.py [--runs 9] [--out benchmarks/results/inr_speed.json]

An iteration is upsampling, synthesis, squared error, the rate of the latents, and all gradients,
for one picture of random numbers; the work does not depend on them. `network` is what is plain,
`fused` what is fused, as a fit runs it: inside `on_all_cores`. Both take turns, so that a drift of
the machine's speed meets both; one run of each is not counted. The least is what the machine can
do, the median what it did; the time of the processor, over all threads, tells more where other work
runs (`load`, before and after).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from codec.benchmark.provenance import origin
from codec.models.inr import fused, network
from codec.models.inr.layout import HYPER_LEVELS, PRESETS, Preset, grid_sizes

HEIGHT, WIDTH = 512, 768
MODULES = {"plain": network, "fused": fused}


def works(module: ModuleType, preset: Preset) -> dict[str, Callable[[], None]]:
    """What to time with either module: value and gradients of each part, and of all together."""
    generator = torch.Generator().manual_seed(0)
    parameters = network.fresh(preset, 1, generator)
    for value in parameters.values():
        value += torch.randn(value.shape, generator=generator) / 20
        value.requires_grad_()
    grids = [
        torch.randn(1, *size, generator=generator).mul_(2).requires_grad_()
        for size in grid_sizes(HEIGHT, WIDTH)
    ]
    latents = grids[len(HYPER_LEVELS) :]
    x = torch.rand(1, 3, HEIGHT, WIDTH, generator=generator)
    stack = network.upsample(latents, parameters).detach().requires_grad_()

    def error(pixels: Tensor) -> Tensor:
        return (pixels - x).square().sum()

    def iteration() -> Tensor:
        pixels = module.synthesise(module.upsample(latents, parameters), parameters)
        loss: Tensor = error(pixels) + module.bits(grids, parameters).sum()
        return loss

    values: dict[str, Callable[[], Tensor]] = {
        "upsample": lambda: module.upsample(latents, parameters).square().sum(),
        "synthesise": lambda: error(module.synthesise(stack, parameters)),
        "bits": lambda: module.bits(grids, parameters).sum(),
        "iteration": iteration,
    }
    return {name: partial(_derive, value, parameters) for name, value in values.items()}


def _derive(value: Callable[[], Tensor], parameters: Mapping[str, Tensor]) -> None:
    for parameter in parameters.values():
        parameter.grad = None
    value().backward()  # type: ignore[no-untyped-call]


def measure(preset: Preset, runs: int) -> dict[str, dict[str, dict[str, float]]]:
    """For each work the least and median seconds of each module, and how the least compare."""
    modules = {name: works(module, preset) for name, module in MODULES.items()}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for work in modules["plain"]:
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in modules}
        for _ in range(runs + 1):
            for name in modules:
                with fused.on_all_cores() if name == "fused" else nullcontext():
                    started = time.perf_counter(), time.process_time()
                    modules[name][work]()
                    ended = time.perf_counter(), time.process_time()
                seconds[name].append((ended[0] - started[0], ended[1] - started[1]))
        for name, each in seconds.items():
            passed, processor = zip(*each[1:], strict=True)
            figures = {"min": min(passed), "median": statistics.median(passed)}
            found.setdefault(work, {})[name] = {**figures, "processor_min": min(processor)}
        plain, quick = found[work]["plain"], found[work]["fused"]
        found[work]["times_as_fast"] = {figure: plain[figure] / quick[figure] for figure in plain}
    return found


def main() -> None:
    """Print one JSON object, and write it where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    rows, before = [], os.getloadavg()
    for threads in options.threads:
        torch.set_num_threads(threads)
        for preset in PRESETS:
            seconds = measure(preset, options.runs)
            rows.append({"threads": threads, "preset": preset.name, "seconds": seconds})
    setting = {"height": HEIGHT, "width": WIDTH, "runs": options.runs}
    load = {"before": before[0], "after": os.getloadavg()[0]}
    result = json.dumps({**origin(), **setting, "load": load, "rows": rows}, indent=1)
    print(result)
    if options.out:
        options.out.write_text(result + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

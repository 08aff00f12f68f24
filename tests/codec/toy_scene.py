"""A family of scenes small enough to test everything around it: rounded values and differences.

It is called `gauss`, so that it is the default for files of Gaussians. Births and deaths make the
last slice longer or shorter.
"""

import hashlib
import json
from functools import cache
from typing import final

import numpy as np
import torch
from safetensors.torch import save

from codec.entropy import Method, Tables
from codec.errors import BitstreamError, UsageError
from codec.gaussians import COEFFICIENTS, Gaussians
from codec.models.base import AbstractScene, AbstractSceneFamily
from codec.registry import FAMILIES, Family
from codec.weights import Zoo

SLICE_MAX = 64
BASE = 14  # numbers of a Gaussian without its higher harmonics
REACH = 1 << 24
SCENES = (
    *(family for family in FAMILIES if family.name != "gauss"),
    Family(120, "gauss", "scene", "tests.codec.toy_scene:ToyScenes"),
)


def make_scene_zoo(folder):
    """A zoo in `folder` with the weights `gauss/toy`."""
    folder.mkdir(exist_ok=True)
    data = save({"nothing": torch.zeros(1)})
    (folder / "toy.safetensors").write_bytes(data)
    entry = {
        "name": "gauss/toy",
        "family": "gauss",
        "file": "toy.safetensors",
        "sha256": hashlib.sha256(data).hexdigest(),
        "parameters": 1,
        "decode_kmac_per_pixel": 0.0,
        "recipe": "none",
        "default": True,
    }
    (folder / "manifest.json").write_text(json.dumps([entry]))
    return Zoo(folder, SCENES)


@final
class ToyScenes(AbstractSceneFamily):
    slice_max = SLICE_MAX

    @classmethod
    def load(cls, tensors, metadata):
        return cls()

    def plan(self, frames, quality):
        degrees = {frame.degree for frame in frames}
        if len(degrees) != 1:
            raise UsageError(f"scene: want frames of one degree, got {sorted(degrees)}")
        return bytes([quality, *degrees])

    def fit(self, cameras, frames, count, quality, search):
        raise UsageError("scene: this family fits nothing")

    def scene(self, plan):
        if len(plan) != 2 or plan[0] > 100 or plan[1] >= len(COEFFICIENTS):
            raise BitstreamError("plan: want a quality and a degree")
        return ToyScene(*plan)


@final
class ToyScene(AbstractScene):
    def __init__(self, quality, degree):
        self.degree = degree
        self.streams = ("head", "base", "rest") if degree else ("head", "base")
        self.layers = 1 if degree else 0
        self._step = 2.0 ** -(quality / 10)
        self._rest = 3 * COEFFICIENTS[degree] - 3

    def key(self, gaussians):
        bins = self._bins(gaussians)
        parts = [bins[at : at + SLICE_MAX] for at in range(0, max(1, len(bins)), SLICE_MAX)]
        return [self._symbols(part, np.zeros_like(part)) for part in parts]

    def follow(self, gaussians, before):
        bins, found, at = self._bins(gaussians), [], 0
        for number, state in enumerate(before):
            last = number == len(before) - 1
            size = SLICE_MAX if last else len(state["base"])
            part = bins[at : at + size]
            at += size
            old = np.concatenate([state["base"], state["rest"]], 1)
            found.append(self._symbols(part, resized(old, len(part))))
        return found if at >= len(bins) else None

    def traverse(self, coder, symbols, before, layers=None):
        head = coder.open("head", Method.RANGE).code(
            None if symbols is None else symbols["head"],
            numbers(0, SLICE_MAX),
            np.zeros(2, np.int32),
        )
        if not 0 <= head[0] <= SLICE_MAX or not 0 <= head[1] <= 1:
            raise BitstreamError(f"head: {head}")
        found = {"head": head}
        for name, width in (("base", BASE), ("rest", self._rest)):
            count = int(head[0]) * width * int(head[1])
            if name not in self.streams or (name == "rest" and layers == 0):
                found[name] = np.zeros(count, np.int32)
                continue
            given = None if symbols is None else symbols[name]
            stream = coder.open(name, Method.RANS)
            found[name] = stream.code(given, numbers(-128, 256), np.zeros(count, np.int32))
        return {name: found[name] for name in ("head", "base", "rest")}

    def after(self, symbols, before):
        count = int(symbols["head"][0])
        found = {}
        for name, width in (("base", BASE), ("rest", self._rest)):
            old = np.zeros((0, width), np.int32) if before is None else before[name]
            new = resized(old, count).astype(np.int64)
            if symbols["head"][1]:
                new += symbols[name].reshape(count, width)
            if np.abs(new).max(initial=0) > REACH:
                raise BitstreamError("a value is too large")
            found[name] = new.astype(np.int32)
        return found

    def gaussians(self, slices):
        base = np.concatenate([state["base"] for state in slices]) * self._step
        rest = np.concatenate([state["rest"] for state in slices]) * self._step
        quats = base[:, 3:7].copy()
        quats[~quats.any(1), 0] = 1
        sh = np.concatenate([base[:, 11:], rest], 1).reshape(
            len(base), COEFFICIENTS[self.degree], 3
        )
        arrays = (base[:, :3], quats, base[:, 7:10], base[:, 10], sh)
        return Gaussians(*(array.astype(np.float32) for array in arrays))

    def _bins(self, gaussians):
        parts = [
            gaussians.means,
            gaussians.quats,
            gaussians.scales,
            gaussians.opacities[:, None],
            gaussians.sh.reshape(len(gaussians), 3 * COEFFICIENTS[self.degree]),
        ]
        return np.rint(np.concatenate(parts, 1) / self._step).astype(np.int32)

    def _symbols(self, bins, old):
        change = bins - old
        changes = change.any()
        change = change[: len(change) * int(changes)]
        return {
            "head": np.array([len(bins), changes], np.int32),
            "base": np.ascontiguousarray(change[:, :BASE]).reshape(-1),
            "rest": np.ascontiguousarray(change[:, BASE:]).reshape(-1),
        }


def resized(old, count):
    """The first `count` rows; those that are missing are 0."""
    return np.concatenate(
        [old[:count], np.zeros((max(0, count - len(old)), old.shape[1]), np.int32)]
    )


@cache
def numbers(lowest, count):
    """Numbers from `lowest` on, the nearer to 0 the likelier, and an escape."""
    weights = 0.97 ** np.abs(np.arange(lowest, lowest + count + 1))
    return Tables.from_pmfs([weights / weights.sum()], np.array([lowest], np.int32), 16)

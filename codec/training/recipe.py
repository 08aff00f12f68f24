"""What a training run is, read from a TOML file. Knows no network.

data = ["../photos"]            folders or tar files, relative to the recipe
start = "iscs/small"            shipped weights to go on from; without it, the KLT of the data
optimiser = "muon"              or "adamw", the default
[network]                       sizes, as the family's config names them (the rates alone: `start`)
[[stage]]                       one after the other, each with a decay of its own
name, train, samples, batch, crop, lr
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codec.errors import InputError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Recipe", "Stage", "read_recipe"]

PARTS = ("entropy", "decoder", "all")
OPTIMISERS = ("adamw", "muon")


@dataclass(frozen=True)
class Stage:
    """A part of the run: which parameters move, on how many samples, how fast.

    `train` is "entropy" (what gives bits and moves no pixel), "decoder" (that and the synthesis) or
    "all". `crop` is the side of the patches in pixels, a multiple of 64. `lr` is the peak; it rises
    over the first 2 % of the stage's samples and falls linearly to 0 at the last.
    """

    name: str
    train: str
    samples: int
    batch: int
    crop: int
    lr: float

    def __post_init__(self) -> None:
        if self.train not in PARTS:
            raise UsageError(f"stage {self.name}: train is one of {PARTS}, got {self.train!r}")
        if self.crop % 64 or min(self.samples, self.batch, self.crop) < 1:
            raise UsageError(f"stage {self.name}: crop is a multiple of 64, counts are positive")

    def rate(self, seen: int) -> float:
        """The learning rate after `seen` of the stage's samples."""
        done = min(seen / self.samples, 1.0)
        return self.lr * min(1.0, done / 0.02 + 0.01) * (1.0 - done)


@dataclass(frozen=True)
class Recipe:
    """A whole run.

    `precision` is the type of the transforms: "float32" or "bfloat16". `start` names weights of the
    zoo; "" is the KLT of the data.
    """

    name: str
    data: tuple[Path, ...]
    stages: tuple[Stage, ...]
    network: dict[str, Any] = field(default_factory=dict)
    start: str = ""
    optimiser: str = "adamw"
    seed: int = 0
    precision: str = "bfloat16"
    compile: bool = False
    ema: float = 0.999
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise UsageError(f"optimiser is one of {OPTIMISERS}, got {self.optimiser!r}")


def read_recipe(path: Path) -> Recipe:
    """Read `path`.

    Raises:
        InputError: it is not there or not TOML.
        UsageError: a key is unknown, missing or out of its range.
    """
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error
    try:
        stages = tuple(Stage(**stage) for stage in content.pop("stage"))
        data = tuple(path.parent / source for source in content.pop("data"))
        return Recipe(data=data, stages=stages, **content)
    except (KeyError, TypeError) as error:
        raise UsageError(f"{path}: {error}") from error

"""From a variant of `nerv` to a weight file: make the tables, write, list.

    python -m codec.training.export_nerv light nerv/light

Nothing is trained: networks are in streams. Knows no file of the zoo but the one it adds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from codec.models.nerv import Nerv
from codec.models.nerv.layout import VARIANTS, Layout
from codec.models.nerv.tables import side_tables, value_tables
from codec.training.ship import ship

__all__ = ["export", "freeze"]

TYPICAL = (60, 240, 416, 32)  # frames, height, width, channels: what decoding costs is said of it


def freeze(variant: str) -> Nerv:
    """The codec whose networks have the parts of this variant."""
    return Nerv(VARIANTS[variant], value_tables(), side_tables())


def export(variant: str, name: str, zoo: Path) -> Path:
    """Write the weights called `name` into `zoo` and list them last in its manifest.

    Args:
        variant: one of `VARIANTS`.
        name: `nerv/something`; the first in the zoo is the family's default.
        zoo: the folder.
    """
    return ship(
        freeze(variant),
        name,
        zoo,
        parameters=0,
        macs=Layout(VARIANTS[variant], *TYPICAL).macs,
        recipe=f"tables only, networks of variant {variant}",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Put a variant of nerv into the zoo.")
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("name", help="nerv/something")
    parser.add_argument("--zoo", type=Path, default=Path(__file__).parents[1] / "zoo")
    options = parser.parse_args()
    print(export(options.variant, options.name, options.zoo))

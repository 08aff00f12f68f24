"""From nothing but tables to a weight file of `gauss`: make them, write, list.

    python -m codec.training.export_gauss gauss/base

Nothing is trained. Knows no file of the zoo but the one it adds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from codec.models.gauss import Gauss
from codec.models.gauss.syntax import Coding
from codec.models.gauss.tables import side_tables, spreads
from codec.models.shapes import value_tables
from codec.training.ship import ship

__all__ = ["export", "freeze"]


def freeze() -> Gauss:
    """The codec with tables as they are made."""
    return Gauss(Coding(value_tables(), side_tables(), spreads()))


def export(name: str, zoo: Path) -> Path:
    """Write the weights called `name` into `zoo` and list them last in its manifest.

    Args:
        name: `gauss/something`; the first in the zoo is the family's default.
        zoo: the folder.
    """
    return ship(freeze(), name, zoo, parameters=0, macs=0, recipe="tables only")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Put tables of gauss into the zoo.")
    parser.add_argument("name", help="gauss/something")
    parser.add_argument("--zoo", type=Path, default=Path(__file__).parents[1] / "zoo")
    options = parser.parse_args()
    print(export(options.name, options.zoo))

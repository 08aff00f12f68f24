"""Every family of codecs, by the number that streams carry. Imports none of them until it is asked.

>>> family_by_name("iscs").id
1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from codec.errors import BitstreamError, UsageError

if TYPE_CHECKING:
    from codec.models.base import AbstractFamily, AbstractSceneFamily, AbstractVideoFamily

__all__ = ["FAMILIES", "Family", "family_by_id", "family_by_name"]


@dataclass(frozen=True)
class Family:
    """One family: its id in the header of a stream, its name, its medium, where its class is."""

    id: int
    name: str
    kind: str
    target: str

    def load(
        self,
    ) -> type[AbstractFamily] | type[AbstractVideoFamily] | type[AbstractSceneFamily]:
        """The class, of the contract for its medium; imports its module."""
        module, _, name = self.target.partition(":")
        return cast("type[AbstractFamily]", getattr(import_module(module), name))


# Ids are part of the format: written out, never computed, never used again for something else.
FAMILIES = (
    Family(1, "iscs", "image", "codec.models.iscs:Iscs"),
    Family(2, "clc", "image", "codec.models.clc:Clc"),
    Family(3, "umgm", "image", "codec.models.umgm:Umgm"),
    Family(4, "inr", "image", "codec.models.inr:Inr"),
    Family(5, "nerv", "video", "codec.models.nerv:Nerv"),
    Family(6, "gauss", "scene", "codec.models.gauss:Gauss"),
    Family(7, "compressai", "image", "codec.models.compressai:CompressAI"),
)


def family_by_name(name: str, families: Sequence[Family] = FAMILIES) -> Family:
    """The family that is called `name`; a UsageError if there is none."""
    for family in families:
        if family.name == name:
            return family
    known = ", ".join(family.name for family in families)
    raise UsageError(f"no family is called {name!r}; there are: {known}")


def family_by_id(number: int, families: Sequence[Family] = FAMILIES) -> Family:
    """The family with this id; a BitstreamError if there is none."""
    for family in families:
        if family.id == number:
            return family
    raise BitstreamError(f"the stream is of family {number}, which this version does not know")

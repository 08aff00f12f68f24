"""Put a codec's weights into a zoo, and list them. Knows no family."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from safetensors.torch import save

from codec.weights import Entry, Zoo

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AbstractShippable", "ship"]


class AbstractShippable(Protocol):
    """A family object that can say what its weight file holds."""

    layers: int

    @property
    def streams(self) -> Sequence[str]:
        """Names of the sub-streams of a tile."""

    def tensors(self) -> dict[str, Tensor]:
        """By name."""

    def metadata(self) -> dict[str, str]:
        """The rest of it, as text."""


def ship(
    codec: AbstractShippable, name: str, zoo: Path, *, parameters: int, macs: float, recipe: str
) -> Path:
    """Write weights into a zoo and list them last in its manifest.

    An entry of the same name stays before it, so that streams made with it still decode. What is
    the default of its family stays so under a new name; that is for the manifest's editor to
    change.

    Args:
        codec: frozen.
        name: `family/variant`.
        zoo: the folder.
        parameters: how many numbers the network has.
        macs: multiplications to decode a pixel.
        recipe: how it was trained.
    """
    content = save(codec.tensors(), codec.metadata())
    digest = hashlib.sha256(content).hexdigest()
    known = Zoo(zoo).manifest() if (zoo / "manifest.json").exists() else ()
    entry = Entry(
        name=name,
        family=name.partition("/")[0],
        file=f"{name.replace('/', '-')}-{digest[:8]}.safetensors",
        sha256=digest,
        parameters=parameters,
        decode_kmac_per_pixel=round(macs / 1000, 2),
        recipe=recipe,
        default=_is_default(name, known),
        streams=codec.streams,
        layers=codec.layers,
    )
    Zoo(zoo).add(entry, content)
    return zoo / entry.file


def _is_default(name: str, entries: Sequence[Entry]) -> bool:
    """Whether new weights are what the family's name alone means: the first are, and successors."""
    family = [entry for entry in entries if entry.family == name.partition("/")[0]]
    return not family or any(entry.default for entry in family if entry.name == name)

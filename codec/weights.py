"""Trained weights by name or by the id in a stream, checked before use. Knows no image.

Weights come from a folder with a `manifest.json`, never from a path or an address in a stream, and
are safetensors, so that nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec.errors import ModelError, UsageError
from codec.io.files import write_whole
from codec.registry import FAMILIES, Family, family_by_name

if TYPE_CHECKING:
    from torch import Tensor

    from codec.models.base import AbstractFamily, AbstractSceneFamily, AbstractVideoFamily

__all__ = ["SHIPPED", "Entry", "Zoo"]

MODEL_ID_BYTES = 8


@dataclass(frozen=True)
class Entry:
    """One weight file, as the manifest describes it.

    Attributes:
        name: `family/variant`.
        family: the family's name.
        file: beside the manifest.
        sha256: of the file, hexadecimal.
        parameters: how many numbers the network has.
        decode_kmac_per_pixel: thousands of multiplications to decode a pixel.
        recipe: how it was trained.
        default: whether the family's name alone means this entry.
        rd: measured rate and distortion.
        streams: names of the sub-streams of a tile.
        layers: how many of them, the last ones, only add detail.
    """

    name: str
    family: str
    file: str
    sha256: str
    parameters: int
    decode_kmac_per_pixel: float
    recipe: str
    default: bool = False
    rd: Mapping[str, Any] = field(default_factory=dict)
    streams: Sequence[str] = ()
    layers: int = 0

    @property
    def model_id(self) -> bytes:
        """What streams carry: the first 8 bytes of the file's SHA-256."""
        return bytes.fromhex(self.sha256)[:MODEL_ID_BYTES]


@dataclass(frozen=True)
class Zoo:
    """A folder of weights, and the families they may belong to."""

    folder: Path
    families: Sequence[Family] = FAMILIES

    def manifest(self) -> tuple[Entry, ...]:
        """All entries, oldest first; imports nothing heavy.

        Raises:
            ModelError: the manifest is missing or is not one.
        """
        known = {item.name for item in fields(Entry)}
        try:
            rows = json.loads((self.folder / "manifest.json").read_text("utf-8"))
            return tuple(Entry(**{k: v for k, v in row.items() if k in known}) for row in rows)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"the list of weights cannot be read: {error}") from error

    def find(self, model: str) -> Entry:
        """The entry for `family`, its default, or for `family/variant`, the newest of that name.

        Raises:
            UsageError: there is no such family or variant.
            ModelError: the family has no weights here.
        """
        family = family_by_name(model.partition("/")[0], self.families)
        entries = [entry for entry in self.manifest() if entry.family == family.name]
        if not entries:
            raise ModelError(f"no weights of {family.name} are installed")
        if "/" in model:
            entries = [entry for entry in entries if entry.name == model]
            if not entries:
                raise UsageError(f"no model is called {model!r}; `codec models` lists them")
            return entries[-1]
        return next((entry for entry in reversed(entries) if entry.default), entries[-1])

    def find_by_id(self, family: Family, model_id: bytes) -> Entry:
        """The entry whose weights made a stream; a ModelError if they are not here."""
        for entry in self.manifest():
            if entry.family == family.name and entry.model_id == model_id:
                return entry
        raise ModelError(
            f"the stream needs weights {model_id.hex()} of {family.name}, which are not installed"
        )

    def load(self, entry: Entry) -> AbstractFamily | AbstractVideoFamily | AbstractSceneFamily:
        """The frozen codec with these weights, on the CPU.

        A file may name another one by its SHA-256 as its `backbone`, here or of those that ship;
        the codec is then made of the tensors of both.

        Raises:
            ModelError: the file is missing, altered, or does not fit its family.
        """
        family = family_by_name(entry.family, self.families)
        tensors, metadata = self._read(entry)
        if "backbone" in metadata:
            below, about = self._backbone(metadata["backbone"])
            tensors, metadata = {**below, **tensors}, {**about, **metadata}
        try:
            return family.load().load(tensors, metadata)
        except (ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"weights {entry.file} do not fit {family.name}: {error}") from error

    def _backbone(self, sha256: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """What `_read` gives for the file with this hash."""
        for zoo in (self, SHIPPED):
            for entry in zoo.manifest():
                if entry.sha256 == sha256:
                    return zoo._read(entry)
        raise ModelError(f"weights with SHA-256 {sha256[:16]}... are not installed")

    def _read(self, entry: Entry) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The tensors of a file and what else it says; a ModelError as of `load`."""
        try:
            data = (self.folder / entry.file).read_bytes()
        except OSError as error:
            raise ModelError(f"weights {entry.file}: {error.strerror or error}") from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != entry.sha256:
            raise ModelError(
                f"weights {entry.file}: want SHA-256 {entry.sha256[:16]}..., got {digest[:16]}...; "
                "install the package again"
            )
        import safetensors.torch

        try:
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            return safetensors.torch.load(data), header.get("__metadata__", {})
        except (ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
            raise ModelError(f"weights {entry.file} cannot be read: {error}") from error

    def add(self, entry: Entry, content: bytes) -> None:
        """Write a weight file and list it last; an entry of the same file goes.

        The manifest is made if there is none.

        Raises:
            ModelError: what is there is no manifest.
            UsageError: the folder cannot be written to.
        """
        manifest = self.folder / "manifest.json"
        kept = self.manifest() if manifest.exists() else ()
        rows = [asdict(old) for old in kept if old.file != entry.file]
        write_whole(self.folder / entry.file, content)
        write_whole(manifest, json.dumps([*rows, asdict(entry)], indent=2).encode() + b"\n")


SHIPPED = Zoo(Path(__file__).parent / "zoo")
"""The weights that come with the package."""

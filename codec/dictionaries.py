"""Dictionaries of a user's own: files that an encoder and its decoders share.

A file is safetensors with the tensors that a conditional family makes (`AbstractConditional`), and
the name and the family's backbone in its metadata. A stream names it and the first 8 bytes of its
SHA-256, so that another file is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, final

from codec.bitstream import Chunk, ChunkType, Container
from codec.errors import BitstreamError, InputError, ModelError, UsageError
from codec.io.files import read_bytes
from codec.progress import Progress, unseen

if TYPE_CHECKING:
    from torch import Tensor

    from codec.engine import Model
    from codec.models.base import AbstractConditional

__all__ = ["DictionaryFile", "build", "pack_dictionary", "read_dictionary", "wanted_dictionary"]

ID_BYTES = 8
NAME_BYTES = 64


@final
@dataclass(frozen=True, eq=False)
class DictionaryFile:
    """A dictionary as it is read: `id` is what streams carry, `backbone` what decodes it."""

    name: str
    id: bytes
    backbone: str
    tensors: Mapping[str, Tensor]

    @property
    def chunk(self) -> Chunk:
        """What a stream says that needs it."""
        return Chunk(ChunkType.DICTIONARY, self.id + self.name.encode())

    def given_to(self, family: AbstractConditional) -> AbstractConditional:
        """`family` with this dictionary.

        Raises:
            ModelError: it was made for other weights, or does not fit them.
        """
        if self.backbone != family.backbone:
            raise ModelError(f"dictionary {self.name!r} was made for other weights")
        try:
            return family.with_dictionary(self.tensors)
        except (KeyError, ValueError) as error:
            raise ModelError(f"dictionary {self.name!r} is damaged: {error}") from error


def build(
    folder: Path,
    model: Model,
    *,
    size: int,
    name: str,
    max_pixels: int,
    progress: Progress = unseen,
) -> bytes:
    """The file of a dictionary of at most `size` squares of the pictures in a folder.

    Squares lie as blocks do: from a picture's left upper corner on, those at its other
    edges filled up with the last row and column.

    Args:
        folder: its files and those in folders inside, those that are pictures.
        model: of a conditional family.
        size: 1 to what the family allows.
        name: 1 to 64 bytes, for messages.
        max_pixels: larger pictures are refused.
        progress: is told how far it has come.

    Raises:
        UsageError: the family takes no dictionary, or a size or a name is out of range.
        InputError: there is no picture.
    """
    from codec.models.base import AbstractConditional

    family = model.family
    if not isinstance(family, AbstractConditional):
        raise UsageError(f"dictionary: {model.entry.name} takes none")
    if not 1 <= size <= family.entries_max:
        raise UsageError(f"size: want 1 to {family.entries_max} entries, got {size}")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    squares = _squares(paths, family.entry_side, max_pixels, progress)
    first = next(squares, None)
    if first is None:
        raise InputError("no picture to take squares of")
    return pack_dictionary(name, family.backbone, family.collect(chain([first], squares), size))


def _squares(
    paths: Sequence[Path], side: int, max_pixels: int, progress: Progress
) -> Iterator[Tensor]:
    """`(1, 3, side, side)` in [0, 1], of all files that are pictures."""
    import torch
    from torch.nn import functional

    from codec.io.reading import read_picture

    for number, path in enumerate(paths):
        try:
            picture = read_picture(read_bytes(path), max_pixels=max_pixels)
        except InputError:
            continue
        levels = picture.colour.astype("float32") / (2**picture.bit_depth - 1)
        x = torch.from_numpy(levels).permute(2, 0, 1)[None].expand(-1, 3, -1, -1)
        missing = (0, -x.shape[3] % side, 0, -x.shape[2] % side)
        x = functional.pad(x, missing, mode="replicate")
        for top in range(0, x.shape[2], side):
            for left in range(0, x.shape[3], side):
                yield x[:, :, top : top + side, left : left + side]
        progress((number + 1) / len(paths))


def pack_dictionary(name: str, backbone: str, tensors: Mapping[str, Tensor]) -> bytes:
    """A dictionary's file.

    Raises:
        UsageError: the name is empty or longer than 64 bytes of UTF-8.
    """
    from safetensors.torch import save

    if not 0 < len(name.encode()) <= NAME_BYTES:
        raise UsageError(f"dictionary's name: want 1 to {NAME_BYTES} bytes, got {name!r}")
    return save(dict(tensors), {"dictionary": name, "backbone": backbone})


def read_dictionary(path: str | Path) -> DictionaryFile:
    """The dictionary in a file.

    Raises:
        InputError: the file cannot be read.
        ModelError: it holds no dictionary.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = read_bytes(path)
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = header["__metadata__"]
        name, backbone = about["dictionary"], about["backbone"]
        identity = hashlib.sha256(data).digest()[:ID_BYTES]
        return DictionaryFile(name, identity, backbone, load(data))
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"{path}: not a dictionary: {error}") from error


def wanted_dictionary(container: Container) -> tuple[str, bytes] | None:
    """The name and the id of the dictionary that a stream needs, if it needs one of its own.

    Raises:
        BitstreamError: the chunk is none of ours.
    """
    payload = container.find(ChunkType.DICTIONARY)
    if payload is None:
        return None
    try:
        name = payload[ID_BYTES:].decode()
    except UnicodeDecodeError as error:
        raise BitstreamError("dictionary chunk: the name is not UTF-8") from error
    if not 0 < len(payload) - ID_BYTES <= NAME_BYTES:
        raise BitstreamError(f"dictionary chunk: want an id and a name, got {len(payload)} bytes")
    return name, payload[:ID_BYTES]

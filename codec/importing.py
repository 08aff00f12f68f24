"""Checkpoints of CompressAI to weight files in a folder that is a `Zoo`. Knows no pixel.

Nothing is unpickled but tensors.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from codec.errors import InputError, UsageError
from codec.io.files import read_bytes
from codec.models.compressai import CompressAI
from codec.models.compressai.freezing import check_architecture, freeze
from codec.weights import Entry, Zoo

__all__ = ["add_weights", "read_checkpoint"]

FAMILY = "compressai"
PUBLISHED = "zoo:"
NUMBERS = (".weight", ".bias", ".beta", ".gamma")


def read_checkpoint(checkpoint: str, arch: str) -> CompressAI:
    """The codec of a checkpoint.

    Args:
        checkpoint: a file that `torch.save` made of a state dict, or of a dict that has one as
            "state_dict"; or `zoo:1` to `zoo:8`, what CompressAI publishes for that quality (and
            mean squared error), which needs CompressAI and is downloaded.
        arch: CompressAI's name of the network.

    Raises:
        UsageError: `arch` cannot be imported, or the published quality cannot be had here.
        InputError: it cannot be read, or holds no state dict.
        ModelError: the weights are not of `arch`.
    """
    check_architecture(arch)
    if checkpoint.startswith(PUBLISHED):
        return freeze(_state(_published(arch, checkpoint.removeprefix(PUBLISHED))), arch)
    data = read_bytes(checkpoint)
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in every way there is
        raise InputError(f"no checkpoint of tensors alone: {_first_line(error)}") from error
    return freeze(_state(loaded), arch)


def _published(arch: str, quality: str) -> object:
    try:
        from compressai.zoo.image import model_urls
    except ImportError as error:
        raise UsageError("CompressAI is not installed; the extra `compressai` has it") from error
    addresses = {str(number): url for number, url in model_urls[arch]["mse"].items()}
    if quality not in addresses:
        raise UsageError(f"quality: want one of {', '.join(addresses)}, got {quality!r}")
    try:
        return torch.hub.load_state_dict_from_url(
            addresses[quality], map_location="cpu", check_hash=True, weights_only=True
        )
    except Exception as error:  # of network, disk and file
        raise InputError(f"cannot be downloaded: {_first_line(error)}") from error


def _state(loaded: object) -> Mapping[str, Tensor]:
    """The state dict in what was loaded."""
    state: Any = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(state, Mapping) or not state:
        raise InputError("want a state dict, or a dict with one as 'state_dict'")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"state dict: want tensors by name, got {type(value).__name__}")
    return state


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def add_weights(codec: CompressAI, file: Path, recipe: str) -> Entry:
    """Write `codec` to `file` and list it in the `manifest.json` beside it.

    Its model is called `compressai/` and the file's stem; an entry of the same file is replaced.

    Raises:
        ModelError: the manifest that is there is none.
        UsageError: the folder cannot be written to.
    """
    tensors = codec.tensors()
    content = save(tensors, codec.metadata())
    entry = Entry(
        name=f"{FAMILY}/{file.stem}",
        family=FAMILY,
        file=file.name,
        sha256=hashlib.sha256(content).hexdigest(),
        parameters=sum(t.numel() for name, t in tensors.items() if name.endswith(NUMBERS)),
        decode_kmac_per_pixel=round(codec.decode_macs() / 1000, 2),
        recipe=recipe,
        streams=codec.streams,
        layers=codec.layers,
    )
    Zoo(file.parent).add(entry, content)
    return entry

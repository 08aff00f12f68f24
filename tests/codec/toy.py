"""A family small enough to test everything around it: pixels in blocks, quantised, no network.

At quality 100 its step is one level of 255, so 8-bit images come back exactly. `blurry` weights
smooth the image with a filter that reaches into the neighbours, so they need a halo.
"""

import hashlib
import json
from typing import final

import numpy as np
import torch
from safetensors.torch import save
from torch.nn import functional

from codec.entropy import Method, Tables
from codec.models.base import SHORT, AbstractFamily
from codec.registry import Family
from codec.weights import Zoo

STRIDE = 16
HEAD = 3  # latents that make up the first stream
SEARCHES = []  # what analyses were told
FAMILIES = (Family(250, "toy", "image", "tests.codec.toy:Toy"),)


def make_zoo(folder):
    """A zoo in `folder` with the weights `toy/sharp`, the default, and `toy/blurry`."""
    folder.mkdir(exist_ok=True)
    entries = []
    for variant, radius in (("sharp", 0), ("blurry", 2)):
        data = save({"nothing": torch.zeros(1)}, {"radius": str(radius)})
        file = f"toy-{variant}.safetensors"
        (folder / file).write_bytes(data)
        entry = {
            "name": f"toy/{variant}",
            "family": "toy",
            "file": file,
            "sha256": hashlib.sha256(data).hexdigest(),
            "parameters": 1,
            "decode_kmac_per_pixel": 0.0,
            "recipe": "none",
            "default": radius == 0,
            "rd": {},
        }
        entries.append(entry)
    (folder / "manifest.json").write_text(json.dumps(entries))
    return Zoo(folder, FAMILIES)


@final
class Toy(AbstractFamily):
    stride = STRIDE
    tile_multiple = STRIDE
    streams = ("head", "body")
    layers = 1

    def __init__(self, radius):
        self.radius = radius
        self.halo = STRIDE if radius else 0

    @classmethod
    def load(cls, tensors, metadata):
        return cls(int(metadata["radius"]))

    def to(self, device):
        return self

    def analyse(self, x, geometry, halo, search=SHORT):
        SEARCHES.append(search)
        h, w = size(geometry)
        x = functional.pad(x, (0, -x.shape[3] % STRIDE, 0, -x.shape[2] % STRIDE), mode="replicate")
        y = functional.pixel_unshuffle(self.smooth(x), STRIDE)
        top, left = halo.top // STRIDE, halo.left // STRIDE
        y = y[0, :, top : top + h, left : left + w]
        assert y.shape[1:] == (h, w)
        symbols = torch.round(y / step(geometry.quality)).to(torch.int32).numpy()
        return {"head": symbols[:HEAD].reshape(-1), "body": symbols[HEAD:].reshape(-1)}

    def traverse(self, coder, symbols, geometry):
        count = int(np.prod(size(geometry)))
        tables = uniform(round(1 / step(geometry.quality)) + 1)
        found = {}
        for name, channels, method in (
            ("head", HEAD, Method.RANGE),
            ("body", 3 * STRIDE**2 - HEAD, Method.RANS),
        )[: 1 if geometry.layers == 0 else 2]:
            indexes = np.zeros(channels * count, np.int32)
            given = None if symbols is None else symbols[name]
            found[name] = coder.open(name, method).code(given, tables, indexes)
        found.setdefault("body", np.zeros((3 * STRIDE**2 - HEAD) * count, np.int32))
        return found

    def dequantise(self, symbols, geometry):
        y = np.concatenate([symbols["head"], symbols["body"]]).reshape(1, -1, *size(geometry))
        return torch.from_numpy(y.astype(np.float32)) * step(geometry.quality)

    def synthesise(self, y_hat, quality):
        return self.smooth(functional.pixel_shuffle(y_hat, STRIDE))

    def smooth(self, x):
        if not self.radius:
            return x
        padded = functional.pad(x, (self.radius,) * 4, mode="replicate")
        return functional.avg_pool2d(padded, 2 * self.radius + 1, stride=1)


def size(geometry):
    return -(-geometry.height // STRIDE), -(-geometry.width // STRIDE)


def step(quality):
    return 2 ** ((100 - quality) / 20) / 255


def uniform(count):
    """All of `count` symbols from 0 equally likely, and an escape."""
    return Tables.from_pmfs([np.full(count + 1, 1 / (count + 1))], np.zeros(1, np.int32), 16)

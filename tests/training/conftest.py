"""A recipe for a network so small that a run takes a second."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RECIPE = """
name = "iscs/tiny"
data = ["photos"]
precision = "float32"
network = {M = 8, inner = 8, encoder_blocks = 1, decoder_blocks = 1, Z = 4, hyper = 8, context = 8}
[[stage]]
name = "entropy"
train = "entropy"
samples = 4
batch = 2
crop = 64
lr = 1e-3
[[stage]]
name = "joint"
train = "all"
samples = 6
batch = 2
crop = 64
lr = 1e-3
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("codec.training.start.KLT_PATCHES", 8)
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for index in range(2):
        coarse = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((272, 260)).save(photos / f"{index}.png")
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path

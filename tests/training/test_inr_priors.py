"""Priors of `inr` from photographs, as small as they can be."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from codec.models.inr.layout import PRESETS, shapes
from codec.training import inr_priors
from codec.training.export_inr import freeze

LOP = PRESETS[0]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setattr(inr_priors, "SIDE", 24)
    rng = np.random.default_rng(0)
    for number in range(3):
        ramp = np.linspace(40, 200, 40) + rng.normal(0, 4, (30, 40))
        pixels = np.stack([ramp, ramp[::-1], 255 - ramp], 2) + 5 * number
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


def made(photos, monkeypatch, *options):
    out = photos / "priors.pt"
    words = ["--preset", "lop", "--pieces", "2", "--out", str(out), *options]
    monkeypatch.setattr(sys, "argv", ["inr_priors", str(photos), *words])
    inr_priors.main()
    return torch.load(out, weights_only=True)


def test_pieces_are_the_middles_of_photographs_that_the_seed_draws(photos):
    found = inr_priors.pieces([photos], 3, seed=1)
    whole = np.asarray(Image.open(photos / "0.png")).transpose(2, 0, 1)[:, 3:27, 8:32]
    assert found.shape == (3, 3, 24, 24)
    assert np.abs(found.numpy() * 255 - whole).max((1, 2, 3)).min() < 1e-3
    assert torch.equal(inr_priors.pieces([photos], 3, seed=1), found)


def test_priors_add_up_in_a_file_that_makes_a_codec(photos, monkeypatch, capsys):
    made(photos, monkeypatch, "--lmbda", "1e-2", "--steps", "60")
    first, last = (float(line.split()[2]) for line in capsys.readouterr().out.splitlines())
    assert last < 0.5 * first
    ((_, _, networks),) = torch.load(photos / "priors.pt", weights_only=True)
    networks["arm.0.bias"] += 5
    torch.save([("lop", 1.0, networks)], photos / "start.pt")
    start = str(photos / "start.pt")
    both = made(photos, monkeypatch, "--lmbda", "1e-3", "--steps", "20", "--start", start)
    assert [(preset, lmbda) for preset, lmbda, _ in both] == [("lop", 1e-2), ("lop", 1e-3)]
    assert {name: value.shape for name, value in both[1][2].items()} == shapes(LOP)
    assert (both[1][2]["arm.0.bias"] - both[0][2]["arm.0.bias"]).median() > 4
    assert [prior.lmbda for prior in freeze(both).priors] == [1e-2, 1e-3]

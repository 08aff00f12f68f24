import torch

from codec.models.inr import Inr
from codec.models.inr.layout import PRESETS
from codec.training.export_inr import decode_macs, export
from codec.weights import Zoo
from tests.models.inr_pictures import random_networks, zeros


def test_priors_become_weights_that_the_zoo_finds(tmp_path):
    torch.save(
        [("lop", 2e-2, zeros(PRESETS[0])), ("hop", 1e-3, random_networks(PRESETS[2], 0))],
        tmp_path / "p",
    )
    for name in ("inr/base", "inr/other"):
        path = export(tmp_path / "p", name, tmp_path, "none")
        assert path.exists()
    zoo = Zoo(tmp_path)
    entry = zoo.find("inr")
    assert entry.name == "inr/base"
    assert [entry.default for entry in zoo.manifest()] == [True, False]
    codec = zoo.load(entry)
    assert isinstance(codec, Inr)
    assert [prior.preset.name for prior in codec.priors] == ["lop", "hop"]
    assert [prior.lmbda for prior in codec.priors] == [2e-2, 1e-3]
    assert entry.streams == ["networks", "latents"]


def test_multiplications_are_those_that_the_paper_counts():
    found = [decode_macs(preset) for preset in PRESETS]
    for expected, macs in zip((475, 1027, 1931), found, strict=True):
        assert abs(macs / expected - 1) < 0.03

"""`clc` begins as shipped `iscs`, which stays, trains what references add, and ends in a zoo."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import codec
from codec.errors import UsageError
from codec.models.clc import Clc, ClcNetwork
from codec.models.iscs import Iscs
from codec.training import export_clc
from codec.training.export import export
from codec.training.loop import Trainer, run
from codec.training.patches import Patches
from codec.training.recipe import Recipe, Stage
from codec.training.start import fresh
from codec.weights import SHIPPED, Zoo

STAGE = Stage("reference", "entropy", 4, 2, 256, 1e-3)


def plan(**network: object) -> Recipe:
    return Recipe("clc/tiny", (), (STAGE,), network=network, start="iscs/small")


def nothing(count: int) -> torch.Tensor:
    raise AssertionError("weights that ship need no patches")


def photos(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    coarse = generator.integers(0, 256, (count, 3, 20, 20), np.uint8)
    return [np.kron(photo, np.ones((1, 15, 15), np.uint8)) for photo in coarse]


def test_only_what_is_added_is_trained() -> None:
    recipe = plan(width=8, keys=4)
    trainer = Trainer(recipe, Patches(photos(3), torch.device("cpu")), torch.device("cpu"))
    assert isinstance(trainer.network, ClcNetwork)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    list(trainer.reports())
    for name, value in trainer.network.state_dict().items():
        if name.startswith("iscs."):
            assert torch.equal(value, before[name])
    moved = [n for n, v in trainer.network.state_dict().items() if not torch.equal(v, before[n])]
    for part in ("match.0", "match.4", "gates.0", "gates.4", "h_r", "shift"):
        assert any(name.startswith(f"reference.{part}") for name in moved)


def test_a_start_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError):
        fresh(plan(breadth=3), nothing)
    with pytest.raises(UsageError):
        fresh(Recipe("clc/tiny", (), (STAGE,), start="inr"), nothing)
    whole = replace(STAGE, train="all")
    with pytest.raises(UsageError, match="entropy"):
        fresh(replace(plan(), stages=(whole,)), nothing)


def test_a_picture_that_a_reference_shows_costs_less_before_any_training() -> None:
    network = fresh(plan(), nothing)
    assert isinstance(network, ClcNetwork)
    x = torch.from_numpy(np.stack(photos(2))[:, :, :256, :256]).float() / 255
    quality = torch.tensor([30.0, 60.0])
    with torch.no_grad():
        y = network.iscs.g_a(x, quality)
        std = network.iscs.std[:, None, None]
        alone = network.iscs.code(y, quality)[1]
        same, _, _ = network.code(y, quality, (y / std)[:, None])
        shown = network.code(y, quality, (y / std)[:, None])[1]
        strange = network.code(y, quality, (y.roll(1, 0) / std)[:, None])[1]
    assert (shown < 0.5 * alone).all()
    assert (strange > shown).all()
    assert (same - y * network.iscs.gain(quality).exp()).abs().max() < 0.96


def test_weights_that_were_not_shipped_are_no_backbone() -> None:
    network = fresh(plan(), nothing)
    assert isinstance(network, ClcNetwork)
    with torch.no_grad():
        network.iscs.g_a.down.weight += 1
    with pytest.raises(UsageError, match="shipped"):
        export_clc.freeze_reference(network, photos(1))


def test_clc_trains_and_its_weights_code(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_clc, "ENTRIES", 2)
    text = recipe.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("network")]
    lines = [line.replace("crop = 64", "crop = 256") for line in lines]
    text = "\n".join(["network = { width = 8, keys = 4 }", 'start = "iscs/small"', *lines])
    text = text.replace("iscs/tiny", "clc/tiny").replace('"all"', '"entropy"')
    recipe.write_text(text)
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    (zoo / "manifest.json").write_text("[]")
    export(run(recipe, out=tmp_path / "run", time_limit=1e-9), recipe, zoo)
    family = Zoo(zoo).load(Zoo(zoo).find("clc"))
    assert isinstance(family, Clc)
    shipped = SHIPPED.load(SHIPPED.find("iscs/small"))
    assert isinstance(shipped, Iscs)
    for name, value in shipped.network.state_dict().items():
        assert torch.equal(family.network.state_dict()[name], value)
    image = torch.rand(3, 40, 50)
    stream = codec.encode(image, quality=60, model="clc", zoo=Zoo(zoo))
    assert codec.decode(stream, zoo=Zoo(zoo)).size == (50, 40)

"""`umgm` begins as trained `iscs`, trains, and ends in a zoo."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import codec
from codec.errors import UsageError
from codec.models.iscs import Iscs
from codec.models.umgm import Umgm, UmgmNetwork
from codec.training.export import export
from codec.training.loop import run
from codec.training.recipe import Recipe, Stage
from codec.training.start import fresh
from codec.weights import SHIPPED, Zoo

NETWORK = {
    "inner": 96,
    "encoder_blocks": 3,
    "decoder_blocks": 3,
    "hyper": 96,
    "context": 96,
    "z": ((32, 2, 16),),
    "core": ((24, 1, 16), (20, 2, 16)),
    "rest": ((128, 2, 8),),
    "layers": (64, 64),
}


def plan(name: str = "umgm/tiny", **network: object) -> Recipe:
    stage = Stage("entropy", "entropy", 1, 1, 64, 1e-3)
    return Recipe(name, (), (stage,), network=NETWORK | network, start="iscs/small")


def nothing(count: int) -> torch.Tensor:
    raise AssertionError("weights that ship need no patches")


def test_umgm_starts_as_iscs() -> None:
    network = fresh(plan(lmbda_max=0.16, lmbda_min=0.0005), nothing)
    assert isinstance(network, UmgmNetwork)
    shipped = SHIPPED.load(SHIPPED.find("iscs/small"))
    assert isinstance(shipped, Iscs)
    theirs = shipped.thaw().respan(0.0005, 0.16).state_dict()
    own = network.state_dict()
    for name in (
        "g_a.blocks.1.enter.weight",
        "h_a.leave.weight",
        "h_s_mean.near.0.weight",
        "auxiliary_means.leave.bias",
        "gain.knots",
        "std",
    ):
        assert torch.equal(own[name], theirs[name])
    # A group's scale is the mean of its channels', here of one.
    levels = own["h_s_scale.level.knots"][4, :24]
    log_scale = own["core.banks.0.spread"][:, 0] + 0.25 * (levels - 20)
    step = torch.log(torch.tensor(256 / 0.11)) / 63
    expected = torch.log(torch.tensor(0.11)) + step * theirs["h_s_scale.level.knots"][4, :24]
    assert torch.allclose(log_scale, expected, atol=1e-3)
    assert torch.equal(own["core.banks.0.codewords"][3, :4, 0], torch.tensor([0.0, -1, 1, -2]))


@pytest.mark.parametrize(
    "recipe",
    [
        plan("new/tiny"),
        plan(inner=100),
        plan(encoder_blocks=1),
        plan(z=((16, 2, 16),)),
        plan(layers=(64, 63)),
        replace(plan(), start="inr"),
    ],
    ids=["family", "inner", "blocks", "z", "layers", "start"],
)
def test_a_start_that_does_not_fit_is_refused(recipe: Recipe) -> None:
    with pytest.raises(UsageError):
        fresh(recipe, nothing)


def test_umgm_trains_and_its_weights_code(recipe: Path, tmp_path: Path) -> None:
    lines = [line for line in recipe.read_text().splitlines() if not line.startswith("network")]
    sizes = ", ".join(f"{key} = {json.dumps(value)}" for key, value in NETWORK.items())
    text = "\n".join([f"network = {{{sizes}}}", 'start = "iscs/small"', *lines])
    recipe.write_text(text.replace("iscs/tiny", "umgm/tiny"))
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    (zoo / "manifest.json").write_text("[]")
    export(run(recipe, out=tmp_path / "run"), recipe, zoo)
    family = Zoo(zoo).load(Zoo(zoo).find("umgm"))
    assert isinstance(family, Umgm)
    assert family.coding.z.sizes.sum() < 32 * 16  # what the photographs did not use is gone
    image = torch.rand(3, 40, 50)
    stream = codec.encode(image, quality=60, model="umgm", zoo=Zoo(zoo))
    assert codec.decode(stream, zoo=Zoo(zoo)).size == (50, 40)

"""A run in pieces, recipes that are wrong, steps that go wrong. Networks here are tiny."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from codec.datasets import read_photos
from codec.errors import InputError, UsageError
from codec.models.iscs import Iscs
from codec.models.replay import Work
from codec.training import run
from codec.training.loop import Trainer
from codec.training.patches import Patches
from codec.training.recipe import Stage, read_recipe
from codec.weights import SHIPPED


def test_a_run_goes_through_its_stages_and_ends(recipe: Path, tmp_path: Path) -> None:
    state = torch.load(run(recipe, out=tmp_path / "run"), weights_only=True)
    assert state["counters"] == {"stage": 2, "seen": 0, "samples": 10}
    assert (tmp_path / "run/log.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_run_in_pieces_sees_the_samples_of_one_run(
    recipe: Path, tmp_path: Path, optimiser: str
) -> None:
    recipe.write_text(f'optimiser = "{optimiser}"\n' + recipe.read_text())
    whole = torch.load(run(recipe, out=tmp_path / "whole"), weights_only=True)
    run(recipe, out=tmp_path / "cut", time_limit=1e-9)  # ends after the first report
    cut = torch.load(run(recipe, out=tmp_path / "cut", resume=True), weights_only=True)
    assert whole["counters"] == cut["counters"]
    assert torch.equal(whole["generator"], cut["generator"])


@pytest.mark.parametrize(
    ("train", "moved"),
    [
        ("entropy", {"h_a", "h_s_scale", "h_s_mean", "prior_z"}),
        ("decoder", {"h_a", "h_s_scale", "h_s_mean", "prior_z", "g_s", "inverse_gain"}),
    ],
)
def test_a_stage_moves_only_its_parts(recipe: Path, train: str, moved: set[str]) -> None:
    recipe.write_text(recipe.read_text().replace('train = "entropy"', f'train = "{train}"'))
    plan = read_recipe(recipe)
    device = torch.device("cpu")
    trainer = Trainer(plan, Patches(read_photos(plan.data), device), device)
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    next(trainer.reports())
    found = {
        name.partition(".")[0]
        for name, p in trainer.network.named_parameters()
        if not torch.equal(before[name], p)
    }
    assert moved == found


def test_a_state_is_not_overwritten_unasked(recipe: Path, tmp_path: Path) -> None:
    run(recipe, out=tmp_path / "run")
    with pytest.raises(InputError, match="--resume"):
        run(recipe, out=tmp_path / "run")


def test_steps_that_blow_up_are_undone(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codec.training.loop.REPORT_STEPS", 1)
    plan = read_recipe(recipe)
    trainer = Trainer(
        plan, Patches(read_photos(plan.data), torch.device("cpu")), torch.device("cpu")
    )
    reports = trainer.reports()
    next(reports)
    good = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    real = trainer._steps
    calls = []

    def nan_once(stage: Stage, step: Work) -> dict[str, object]:
        report = real(stage, step)
        calls.append(report)
        if len(calls) == 1:
            with torch.no_grad():
                trainer.network.prior_z.knots.fill_(float("nan"))
            return {**report, "loss": float("nan")}
        assert trainer.seen == 4  # the second step again, not a third
        return report

    monkeypatch.setattr(trainer, "_steps", nan_once)
    assert next(reports)["samples"] == 4
    assert len(calls) == 2
    assert trainer.network.prior_z.knots.isfinite().all()
    assert set(good) == set(trainer.network.state_dict())


def test_the_rate_rises_then_falls_to_nothing() -> None:
    stage = Stage(name="s", train="all", samples=1000, batch=10, crop=64, lr=1.0)
    assert stage.rate(0) < 0.05
    assert stage.rate(30) == pytest.approx(0.97)
    assert stage.rate(500) == pytest.approx(0.5)
    assert stage.rate(1000) == 0


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('train = "all"', 'train = "everything"', UsageError),
        ("crop = 64", "crop = 65", UsageError),
        ("lr = 1e-3", "lr = 1e-3\nspeed = 2", UsageError),
        ("context = 8", "contexts = 8", UsageError),
        ("context = 8", "context = 8, groups = [4, 3]", UsageError),
        ('precision = "float32"', 'optimiser = "sgd"', UsageError),
        ('precision = "float32"', 'start = "iscs/unheard-of"', UsageError),
        ('precision = "float32"', 'start = "iscs/small"', UsageError),  # the network shrinks
        ("[[stage]]", "[[stage", InputError),
        ('["photos"]', '["nowhere"]', InputError),
    ],
)
def test_a_wrong_recipe_is_refused(
    recipe: Path, tmp_path: Path, old: str, new: str, error: type[Exception]
) -> None:
    recipe.write_text(recipe.read_text().replace(old, new))
    with pytest.raises(error):
        run(recipe, out=tmp_path / "run")


def test_photos_come_from_tar_files_and_folders_alike(recipe: Path, tmp_path: Path) -> None:
    folder = recipe.parent / "photos"
    packs = tmp_path / "packs"
    packs.mkdir()
    with tarfile.open(packs / "photos.tar", "w") as tar:
        for path in sorted(folder.iterdir(), reverse=True):
            tar.add(path, path.name)
    expected = read_photos([folder])
    assert [photo.shape for photo in expected] == [(3, 260, 272)] * 2
    for source in (packs, packs / "photos.tar"):
        for one, other in zip(expected, read_photos([source]), strict=True):
            np.testing.assert_array_equal(one, other)


def test_small_photos_are_left_out_and_none_at_all_is_an_error(recipe: Path) -> None:
    with pytest.raises(InputError, match="no photographs"):
        read_photos([recipe.parent / "photos"], least=1000)


def test_a_state_is_saved_now_and_then(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    monkeypatch.setattr("codec.training.loop._save_state", lambda *_: saved.append(1))
    run(recipe, out=tmp_path / "seldom")
    assert len(saved) == 1  # at the end
    monkeypatch.setattr("codec.training.loop.SAVE_SECONDS", 0)
    run(recipe, out=tmp_path / "often")
    assert len(saved) == 1 + 3  # after both reports, too


def test_a_run_can_grow_the_shipped_weights(recipe: Path) -> None:
    text = recipe.read_text().replace(
        'name = "iscs/tiny"', 'name = "iscs/tiny"\nstart = "iscs/small"'
    )
    lines = [line for line in text.splitlines() if not line.startswith("network")]
    lines.insert(0, "network = {inner = 100, lmbda_max = 0.08}")
    recipe.write_text("\n".join(lines))
    plan = read_recipe(recipe)
    device = torch.device("cpu")
    trainer = Trainer(plan, Patches(read_photos(plan.data), device), device)
    assert trainer.network.config.inner == 100
    assert trainer.network.config.lmbda_max == 0.08
    shipped = SHIPPED.load(SHIPPED.find("iscs/small"))
    assert isinstance(shipped, Iscs)
    kept = trainer.network.g_a.blocks[0].enter.weight[: shipped.network.config.inner]
    assert torch.equal(shipped.network.g_a.blocks[0].enter.weight, kept)


def test_a_run_can_start_from_the_shipped_weights(recipe: Path, tmp_path: Path) -> None:
    text = 'start = "iscs"\n' + recipe.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("network")]
    recipe.write_text("\n".join(lines))
    plan = read_recipe(recipe)
    device = torch.device("cpu")
    trainer = Trainer(plan, Patches(read_photos(plan.data), device), device)
    shipped = SHIPPED.load(SHIPPED.find("iscs"))
    assert isinstance(shipped, Iscs)
    for name, value in shipped.network.state_dict().items():
        assert torch.equal(value, trainer.network.state_dict()[name]), name


def test_a_run_that_ended_goes_on_with_a_stage_that_was_added(recipe: Path, tmp_path: Path) -> None:
    run(recipe, out=tmp_path / "run")
    first = recipe.read_text().split("[[stage]]")[1].replace("entropy", "again", 1)
    recipe.write_text(recipe.read_text() + "[[stage]]" + first)
    run(recipe, out=tmp_path / "run", resume=True)
    reports = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert json.loads(reports[-1])["stage"] == "again"
    assert json.loads(reports[-1])["samples"] == 4 + 6 + 4

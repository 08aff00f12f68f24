"""From a training state to a zoo: what is written loads, codes, and follows what was counted."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from codec.entropy import BitCounter
from codec.models.base import Halo, TileGeometry
from codec.models.iscs import IscsConfig, IscsNetwork
from codec.training.export import decode_macs, export
from codec.training.export_iscs import fit_tables
from codec.training.loop import run
from codec.weights import Zoo

TINY = IscsConfig(M=8, inner=8, encoder_blocks=1, decoder_blocks=1, Z=4, hyper=8, context=8)


@pytest.mark.parametrize("default", [True, False])
def test_exported_weights_load_from_the_zoo_and_leave_older_ones_there(
    recipe: Path, tmp_path: Path, default: bool
) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    older = {
        "name": "iscs/tiny",
        "family": "iscs",
        "file": "older.safetensors",
        "sha256": "00" * 32,
        "parameters": 1,
        "decode_kmac_per_pixel": 1.0,
        "recipe": "none",
        "default": default,
    }
    other = {**older, "name": "iscs/other", "default": not default}
    (zoo / "manifest.json").write_text(json.dumps([older, other]))
    file = export(run(recipe, out=tmp_path / "run"), recipe, zoo)
    entries = Zoo(zoo).manifest()
    assert [entry.file for entry in entries[::2]] == ["older.safetensors", file.name]
    entry = Zoo(zoo).find("iscs/tiny")
    assert entry.file == file.name
    assert Zoo(zoo).find("iscs").name == ("iscs/tiny" if default else "iscs/other")
    family = Zoo(zoo).load(entry)
    geometry = TileGeometry(64, 64, 50)
    symbols = family.analyse(torch.rand(1, 3, 64, 64), geometry, Halo())
    assert {key: len(value) for key, value in symbols.items()} == {"z": 4, "y": 8 * 16}
    assert entry.parameters == sum(p.numel() for p in IscsNetwork(TINY).parameters())


def test_a_state_that_a_gpu_wrote_goes_on_and_is_exported_without_one(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = recipe.read_text()
    recipe.write_text('optimiser = "muon"\n' + plan)
    state = run(recipe, out=tmp_path / "run", time_limit=1e-9)  # ends after the first report
    written_by_a_gpu(state, monkeypatch)
    assert run(recipe, out=tmp_path / "run", resume=True) == state
    written_by_a_gpu(state, monkeypatch)
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    (zoo / "manifest.json").write_text("[]")
    file = export(state, recipe, zoo)
    assert Zoo(zoo).find("iscs/tiny").file == file.name


def written_by_a_gpu(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Say in `state` that its tensors lay on a GPU, as one that was saved there does."""
    saved = torch.load(state, map_location="cpu", weights_only=True)
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(saved, state)


def test_fitted_tables_cost_less_on_what_they_were_fitted_to() -> None:
    torch.manual_seed(0)
    network = IscsNetwork(TINY)
    torch.nn.init.constant_(network.gain.knots, 3.0)  # or all of y would be 0
    codec = network.freeze()
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (3, 128, 128), dtype=np.uint8) for _ in range(4)]
    fitted = fit_tables(codec, photos)
    bits = []
    for candidate in (codec, fitted):
        counter = BitCounter()
        geometry = TileGeometry(128, 128, 60)
        x = torch.from_numpy(photos[0])[None].float() / 255
        candidate.traverse(counter, candidate.analyse(x, geometry, Halo()), geometry)
        bits.append([counter.bits_of("z"), counter.bits_of("y")])
    assert (np.array(bits[1]) < bits[0]).all()
    np.testing.assert_array_equal(codec.coding.tables.offsets, fitted.coding.tables.offsets)


def test_hyper_latents_have_a_table_for_each_channel_and_every_tenth_quality() -> None:
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (3, 64, 64), dtype=np.uint8) for _ in range(2)]
    codec = IscsNetwork(TINY).freeze()
    fitted = fit_tables(codec, photos).coding
    for quality, place in ((0, 0), (4, 0), (5, 1), (94, 9), (95, 10), (100, 10)):
        tables, rows = fitted.of_z(quality)
        assert tables is fitted.tables_z
        assert rows.tolist() == list(range(4 * place, 4 * place + 4))
    tables, rows = codec.coding.of_z(30)
    assert tables is codec.coding.tables
    assert rows.tolist() == codec.coding.prior_z[30].tolist()


def test_decoding_costs_all_of_the_network_but_its_analysis() -> None:
    network = IscsNetwork(TINY)
    up, leave = 8 * 4 * 192 / 256, 192 * 192 / 64
    block = (2 * 192 * 8 + 9 * 8 + 2 * 192 * 16) / 64
    synthesis = up + block + leave
    assert synthesis < decode_macs(network) < 1.2 * synthesis

"""`codec import-compressai` and `--zoo`: from a checkpoint to files, or one clear line."""

import json
import pickle
import sys

import pytest
import torch
from PIL import Image

import codec
from codec import cli
from codec.errors import ModelError
from codec.weights import Entry, Zoo
from tests.codec.images import file_of, image_of_mode
from tests.models.compressai_states import state_of

ARCH = "bmshj2018-hyperprior"


@pytest.fixture
def run(capsys):
    """Run a command line in this process: its exit code, standard output and error."""

    def call(*words):
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pth.tar"
    torch.save({"epoch": 3, "state_dict": state_of(ARCH)}, path)
    return path


@pytest.fixture
def weights(checkpoint, run, tmp_path):
    path = tmp_path / "zoo" / "mine.safetensors"
    path.parent.mkdir()
    assert run("import-compressai", checkpoint, "--arch", ARCH, "--out", path) == (0, "", "")
    return path


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(file_of(image_of_mode("RGB", 70, 50)))
    return path


def one_line(err):
    return err.startswith("codec: ") and err.count("\n") == 1 and err.endswith("\n")


def test_imported_weights_code_images_with_zoo_and_only_with_it(weights, png, run, tmp_path):
    stream, back = tmp_path / "a.bin", tmp_path / "a.png"
    zoo = ("--zoo", weights.parent)
    code, out, _ = run("encode", png, stream, "-m", "compressai", *zoo, "--json")
    assert (code, json.loads(out)["model"]) == (0, "compressai/mine")
    assert run("decode", stream, back, *zoo) == (0, "", "")
    layers = json.loads(run("info", stream, *zoo, "--json")[1])["layers"]
    assert len(layers) == 4
    assert run("decode", stream, tmp_path / "b.png")[0] == 5
    assert run("encode", png, tmp_path / "b.bin", "-m", "compressai")[0] == 5
    assert json.loads(run("info", stream, "--json")[1])["layers"] == []
    with Image.open(back) as image:
        assert image.tobytes() == codec.decode(stream, zoo=Zoo(weights.parent)).tobytes()


def test_models_lists_what_is_in_the_folder(weights, run):
    rows = json.loads(run("models", "--zoo", weights.parent, "--json")[1])["models"]
    assert [(row["name"], row["family"]) for row in rows] == [("compressai/mine", "compressai")]
    assert "compressai/mine" in run("models", "--zoo", weights.parent)[1]
    assert "compressai" not in run("models")[1]


def test_every_form_of_a_checkpoint_gives_the_same_bytes_again(weights, run, tmp_path):
    state = state_of(ARCH)
    parallel = {f"module.{name}": value for name, value in state.items()}
    for number, content in enumerate((state, parallel, {"state_dict": state}, state, state)):
        path, out = tmp_path / f"{number}.pth", tmp_path / f"{number}.safetensors"
        torch.save(content, path)
        assert run("import-compressai", path, "--arch", ARCH, "--out", out)[0] == 0
        assert out.read_bytes() == weights.read_bytes()


def test_a_second_import_is_listed_after_the_first_and_is_what_the_family_means(
    weights, checkpoint, run
):
    other = weights.with_name("other.safetensors")
    torch.save(state_of("mbt2018-mean"), checkpoint)
    assert run("import-compressai", checkpoint, "--arch", "mbt2018-mean", "--out", other)[0] == 0
    zoo = Zoo(weights.parent)
    assert [entry.name for entry in zoo.manifest()] == ["compressai/mine", "compressai/other"]
    assert zoo.find("compressai").name == "compressai/other"
    assert all(zoo.load(entry).layers == 3 for entry in zoo.manifest())


def test_force_replaces_weights_and_their_entry(weights, checkpoint, run):
    before = weights.read_bytes()
    words = ("import-compressai", checkpoint, "--arch", ARCH, "--out", weights)
    torch.save(state_of(ARCH, seed=1), checkpoint)
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert "--force" in err
    assert weights.read_bytes() == before
    assert run(*words, "--force") == (0, "", "")
    assert weights.read_bytes() != before
    (entry,) = Zoo(weights.parent).manifest()
    assert Zoo(weights.parent).load(entry)


def test_nothing_but_the_weights_and_the_manifest_is_left(weights):
    assert {path.name for path in weights.parent.iterdir()} == {"mine.safetensors", "manifest.json"}


def test_other_entries_of_a_manifest_stay(tmp_path):
    zoo = Zoo(tmp_path)
    entries = [
        Entry(f"iscs/{name}", "iscs", f"{name}.safetensors", "00" * 32, 1, 1.0, "none", rd={"a": 1})
        for name in ("a", "b")
    ]
    for entry in (*entries, entries[0]):
        zoo.add(entry, b"weights")
    assert [entry.name for entry in zoo.manifest()] == ["iscs/b", "iscs/a"]
    assert zoo.manifest()[0].rd == {"a": 1}


def test_a_folder_whose_manifest_is_none_gets_no_weights(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    entry = Entry("iscs/a", "iscs", "a.safetensors", "00" * 32, 1, 1.0, "none")
    with pytest.raises(ModelError, match="list of weights"):
        Zoo(tmp_path).add(entry, b"weights")
    assert not (tmp_path / "a.safetensors").exists()


class Call:
    """What unpickling must never run."""

    def __reduce__(self):
        return (print, ("unpickled",))


@pytest.mark.parametrize(
    ("content", "arch", "code", "reason"),
    [
        (b"", ARCH, 3, "no checkpoint"),
        (b"PK\3\4 no archive", ARCH, 3, "no checkpoint"),
        (pickle.dumps(Call()), ARCH, 3, "no checkpoint"),
        ([1, 2], ARCH, 3, "state dict"),
        ({}, ARCH, 3, "state dict"),
        ({"state_dict": {"g_a.0.weight": 1.0}}, ARCH, 3, "state dict"),
        ({"state_dict": None}, ARCH, 3, "state dict"),
        ({"weight": torch.zeros(3)}, ARCH, 5, "weight"),
        (state_of("mbt2018-mean"), ARCH, 5, "not of bmshj2018-hyperprior"),
        (state_of(ARCH), "mbt2018-mean", 5, "not of mbt2018-mean"),
        (state_of(ARCH) | {"context_prediction.mask": torch.ones(1)}, ARCH, 2, "one after another"),
        (state_of(ARCH), "mbt2018", 2, "one after another"),
        (state_of(ARCH), "cheng2020-attn", 2, "one after another"),
        (state_of(ARCH), "nothing", 2, "bmshj2018-factorized"),
    ],
)
def test_what_cannot_be_imported_has_its_exit_code_and_one_line(
    content, arch, code, reason, checkpoint, run, tmp_path
):
    if isinstance(content, bytes):
        checkpoint.write_bytes(content)
    else:
        torch.save(content, checkpoint)
    before = set(tmp_path.iterdir())
    out = tmp_path / "out.safetensors"
    found, printed, err = run("import-compressai", checkpoint, "--arch", arch, "--out", out)
    assert (found, printed) == (code, "")
    assert reason in err
    assert one_line(err)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_checkpoint_that_is_cut_is_refused(share, checkpoint, run, tmp_path):
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: int(share * len(data))])
    out = tmp_path / "out.safetensors"
    code, _, err = run("import-compressai", checkpoint, "--arch", ARCH, "--out", out)
    assert code == 3
    assert one_line(err)
    assert not out.exists()


@pytest.mark.parametrize("name", ["-", "manifest.json", "weights.bin", ".safetensors"])
def test_an_output_that_is_no_weight_file_is_refused(name, checkpoint, run):
    code, _, err = run("import-compressai", checkpoint, "--arch", ARCH, "--out", name)
    assert code == 2
    assert ".safetensors" in err
    assert one_line(err)


def test_a_missing_checkpoint_and_a_missing_folder_are_refused(checkpoint, run, tmp_path):
    out = tmp_path / "out.safetensors"
    assert run("import-compressai", tmp_path / "none", "--arch", ARCH, "--out", out)[0] == 3
    out = tmp_path / "none" / "out.safetensors"
    assert run("import-compressai", checkpoint, "--arch", ARCH, "--out", out)[0] == 2


def test_a_published_quality_needs_compressai_and_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "compressai", None)
    out = tmp_path / "out.safetensors"
    code, _, err = run("import-compressai", "zoo:3", "--arch", ARCH, "--out", out)
    assert code == 2
    assert "extra `compressai`" in err


def test_a_folder_without_a_manifest_is_no_zoo(png, run, tmp_path):
    for words in (
        ("models",),
        ("encode", png, tmp_path / "a.bin"),
    ):
        code, _, err = run(*words, "--zoo", tmp_path)
        assert code == 5
        assert one_line(err)

"""Dictionaries as files: built by a command, named by streams, refused where they do not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save

import codec
from codec.bitstream import ChunkType, unpack
from codec.cli import main
from codec.dictionaries import pack_dictionary, read_dictionary
from codec.errors import CodecError, InputError, ModelError, UsageError
from codec.weights import Zoo
from tests.models.clc_tiny import pictures, tiny, tiny_zoo


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return tiny_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures, one of them in a folder inside, and a file that is none."""
    folder = tmp_path_factory.mktemp("domain")
    (folder / "inside").mkdir()
    for number, picture in enumerate(pictures(6, 300, 260)[4:]):
        levels = (picture.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(levels).save(folder / ("inside" if number else "") / f"{number}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def made(zoo: Zoo, domain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("made") / "forms.dict"
    words = ["dictionary", "build", str(domain), "--out", str(file), "--zoo", str(zoo.folder)]
    assert main(words) == 0
    return file


def strange() -> np.ndarray:
    """Noise, which no dictionary has."""
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def test_a_picture_of_the_domain_is_smaller_and_needs_its_dictionary(
    zoo: Zoo, domain: Path, made: Path
) -> None:
    picture = domain / "0.png"
    stream = codec.encode(picture, model="clc", quality=30, dictionary=made, zoo=zoo)
    alone = codec.encode(picture, model="iscs", quality=30, zoo=zoo)
    assert len(stream) < 0.8 * len(alone)
    file = read_dictionary(made)
    assert unpack(stream).find(ChunkType.DICTIONARY) == file.id + b"forms"
    decoded = codec.decode(stream, dictionary=made, zoo=zoo)
    assert isinstance(decoded, Image.Image)
    assert decoded.size == (260, 300)
    info = codec.info(stream, zoo=zoo)
    assert [chunk["type"] for chunk in info["chunks"]] == ["header", "dictionary", "tile"]


def test_a_stream_without_its_dictionary_names_it(
    zoo: Zoo, domain: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream, image = tmp_path / "a.bin", tmp_path / "a.png"
    common = ["--zoo", str(zoo.folder), "-q"]
    words = ["encode", str(domain / "0.png"), str(stream), "-m", "clc", "--dictionary", str(made)]
    assert main([*words, *common, "30"]) == 0
    assert main(["decode", str(stream), str(image), *common[:2]]) == 5
    name = read_dictionary(made).id.hex()
    assert f"needs dictionary 'forms' ({name})" in capsys.readouterr().err
    other = tmp_path / "other.dict"
    build = ["dictionary", "build", str(domain / "inside"), "--out", str(other), *common[:2]]
    assert main(build) == 0
    decode = ["decode", str(stream), str(image), *common[:2], "--dictionary"]
    assert main([*decode, str(other)]) == 5
    assert not image.exists()
    assert main([*decode, str(made)]) == 0
    with Image.open(image) as decoded:
        assert decoded.size == (260, 300)


def test_a_stream_that_does_not_refer_needs_no_dictionary(zoo: Zoo, made: Path) -> None:
    image = strange()
    stream = codec.encode(image, model="clc", quality=90, dictionary=made, zoo=zoo)
    assert unpack(stream).find(ChunkType.DICTIONARY) is None
    alone = codec.encode(image, model="clc", quality=90, zoo=zoo)
    assert stream == alone
    given = codec.decode(stream, dictionary=made, zoo=zoo)
    np.testing.assert_array_equal(codec.decode(stream, zoo=zoo), given)


def test_a_stream_of_the_models_own_dictionary_is_read_with_another_at_hand(
    zoo: Zoo, made: Path
) -> None:
    own = codec.load_model("clc", zoo=zoo)
    with_another = codec.load_model("clc", dictionary=made, zoo=zoo)
    stream = own.compress(pictures(4)[1], quality=30)
    assert unpack(stream).find(ChunkType.DICTIONARY) is None
    assert torch.equal(own.decompress(stream), with_another.decompress(stream))
    assert len(stream) < len(with_another.compress(pictures(4)[1], quality=30))


def test_a_model_decompresses_what_its_dictionary_made(zoo: Zoo, domain: Path, made: Path) -> None:
    model = codec.load_model("clc", dictionary=made, zoo=zoo)
    x = pictures(6, 300, 260)[4]
    stream = model.compress(x, quality=30)
    decoded = codec.decode(stream, as_tensor=True, dictionary=made, zoo=zoo)
    assert (model.decompress(stream)[0] - decoded).abs().max() < 0.51 / 255
    with pytest.raises(ModelError, match="forms"):
        codec.load_model("clc", zoo=zoo).decompress(stream)


def test_tiles_share_the_dictionary(zoo: Zoo, made: Path) -> None:
    x = pictures(6, 300, 260)[4]
    wide = torch.cat([x] * 5, dim=2)
    model = codec.load_model("clc", dictionary=made, zoo=zoo)
    stream = model.compress(wide, quality=30)
    assert unpack(stream).header.tiles == 2
    decoded = codec.decode(stream, as_tensor=True, dictionary=made, zoo=zoo)
    assert (model.decompress(stream)[0] - decoded).abs().max() < 0.51 / 255
    assert len(stream) < 0.8 * len(codec.load_model("iscs", zoo=zoo).compress(wide, quality=30))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--size", "0"], 2),
        (["--size", "4097"], 2),
        (["-m", "iscs"], 2),
    ],
)
def test_a_build_that_makes_no_sense_is_refused(
    words: list[str], code: int, zoo: Zoo, domain: Path, tmp_path: Path
) -> None:
    out = ["--out", str(tmp_path / "a.dict")]
    common = ["dictionary", "build", str(domain), *out, "--zoo", str(zoo.folder)]
    assert main([*common, *words]) == code
    assert not list(tmp_path.iterdir())


def test_a_folder_without_pictures_makes_no_dictionary(zoo: Zoo, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("nothing to see")
    words = ["dictionary", "build", str(tmp_path), "--out", str(tmp_path / "a.dict")]
    assert main([*words, "--zoo", str(zoo.folder)]) == 3


def test_a_smaller_dictionary_has_so_many_entries(zoo: Zoo, domain: Path, tmp_path: Path) -> None:
    words = ["dictionary", "build", str(domain), "--out", str(tmp_path / "a"), "--size", "3"]
    assert main([*words, "--zoo", str(zoo.folder)]) == 0
    assert len(read_dictionary(tmp_path / "a").tensors["dictionary.sizes"]) == 3


def altered(made: Path, change: str) -> bytes:
    data = made.read_bytes()
    tensors = load(data)
    file = read_dictionary(made)
    if change == "cut":
        return data[:-1]
    if change == "text":
        return b"no dictionary at all, but longer than eight bytes"
    if change == "backbone":
        return pack_dictionary("forms", "11" * 32, tensors)
    if change == "metadata":
        return save(tensors, {"dictionary": "forms"})
    if change == "parts":
        tensors["dictionary.sizes"] += 1
        return pack_dictionary("forms", file.backbone, tensors)
    del tensors["dictionary.axes"]
    return pack_dictionary("forms", file.backbone, tensors)


@pytest.mark.parametrize("change", ["cut", "text", "backbone", "metadata", "parts", "missing"])
def test_a_file_that_is_no_dictionary_for_it_is_refused(
    change: str, zoo: Zoo, made: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.dict"
    bad.write_bytes(altered(made, change))
    with pytest.raises(ModelError):
        codec.encode(strange(), model="clc", dictionary=bad, zoo=zoo)


def test_a_name_that_no_stream_can_carry_is_refused(made: Path) -> None:
    for name in ("", "x" * 65, "\N{GREEK SMALL LETTER ALPHA}" * 33):
        with pytest.raises(UsageError, match="name"):
            pack_dictionary(name, "00" * 32, read_dictionary(made).tensors)


def test_what_takes_no_dictionary_says_so(zoo: Zoo, made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        codec.encode(strange(), model="iscs", dictionary=made, zoo=zoo)
    with pytest.raises(UsageError):
        codec.encode(strange()[None], model="nerv", dictionary=made)
    with pytest.raises(InputError):
        codec.encode(strange(), model="clc", dictionary=tmp_path / "none", zoo=zoo)


def test_weights_whose_backbone_is_missing_say_so(zoo: Zoo, tmp_path: Path) -> None:
    entry = zoo.find("clc")
    (tmp_path / entry.file).write_bytes((zoo.folder / entry.file).read_bytes())
    Zoo(tmp_path).add(entry, (zoo.folder / entry.file).read_bytes())
    with pytest.raises(ModelError, match=tiny(zoo.find("iscs").sha256).backbone[:16]):
        Zoo(tmp_path).load(entry)


def test_a_damaged_entry_is_an_error_of_ours(
    zoo: Zoo, domain: Path, made: Path, tmp_path: Path
) -> None:
    stream = codec.encode(domain / "0.png", model="clc", quality=30, dictionary=made, zoo=zoo)
    file = read_dictionary(made)
    tensors = dict(file.tensors)
    tensors["dictionary.streams"] = tensors["dictionary.streams"] ^ 0x55
    bad = tmp_path / "forms.dict"
    bad.write_bytes(pack_dictionary("forms", file.backbone, tensors))
    forged = stream.replace(file.id, read_dictionary(bad).id)
    with pytest.raises(CodecError):
        codec.decode(forged, dictionary=bad, zoo=zoo)

import json

import numpy as np
import pytest
from PIL import Image

import codec
from codec import cli
from codec.cameras import Camera, pack_camera
from codec.io.splats import read_splats, write_splats
from codec.models.gauss.render import render
from tests.codec.toy_scene import make_scene_zoo
from tests.scene_frames import assert_same, moving

LENGTH = 5
CAMERA = Camera.looking(eye=(0, -0.3, 0), at=(0, 0.2, 4), width=48, height=32, field=70)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return make_scene_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder of frames as PLY."""
    path = tmp_path_factory.mktemp("frames")
    for number, frame in enumerate(moving(150, LENGTH, 1)):
        write_splats(path / f"{number:04d}.ply", frame)
    return path


@pytest.fixture(scope="module")
def stream(source, zoo, tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "out.bin"
    words = ["encode", str(source / "%04d.ply"), str(path), "-m", "gauss", "--key-every", "2"]
    assert cli.main([*words, "-q", "90"], zoo=zoo) == 0
    return path


def test_encoding_says_what_it_made(run, source, zoo, tmp_path):
    target = tmp_path / "out.bin"
    code, out, _ = run("encode", source, target, "--json")  # gauss by default
    said, info = json.loads(out), codec.info(target, zoo=zoo)
    assert code == 0
    assert said["bytes"] == target.stat().st_size
    assert said["bits_per_gaussian"] == pytest.approx(8 * said["bytes"] / (LENGTH * 150))
    assert (
        (said["frames"], said["gaussians"]) == (LENGTH, 150) == (info["frames"], info["gaussians"])
    )
    assert (said["model"], said["quality"]) == ("gauss/toy", 60)
    assert said["model_id"] == info["model_id"]
    assert set(said["seconds"]) == {"load", "transform", "entropy", "total"}


def test_a_pattern_a_folder_and_one_file_are_scenes(run, source, zoo, tmp_path):
    made = []
    for name in (source, source / "%04d.ply", source / "0002.ply"):
        assert run("encode", name, tmp_path / "out.bin", "--force")[0] == 0
        made.append((tmp_path / "out.bin").read_bytes())
    assert made[0] == made[1]
    assert codec.info(made[2], zoo=zoo)["frames"] == 1


@pytest.mark.parametrize("extension", [".ply", ".spz", ".splat"])
def test_frames_go_into_numbered_files(run, stream, zoo, tmp_path, extension):
    code, out, _ = run("decode", stream, tmp_path / f"%03d{extension}", "--json")
    said = json.loads(out)
    assert (code, said["frames"], said["gaussians"]) == (0, LENGTH, 150)
    assert len(said["symbols_sha256"]) == 64
    assert set(said["seconds"]) == {"load", "transform", "entropy", "total"}
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"{number:03}{extension}" for number in range(LENGTH)]
    for name, expected in zip(names, codec.decode_scene(stream, zoo=zoo), strict=True):
        found = read_splats(tmp_path / name)
        if extension == ".ply":
            assert_same(found, expected)
        np.testing.assert_allclose(found.means, expected.means, atol=1e-3)


def test_some_frames_keep_their_numbers(run, stream, zoo, tmp_path):
    assert run("decode", stream, tmp_path / "%d.ply", "--frames", "3:5") == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3.ply", "4.ply"]
    assert run("decode", stream, tmp_path / "one.ply", "--frames", "2:3") == (0, "", "")
    (expected,) = codec.decode_scene(stream, frames=(2, 3), zoo=zoo)
    assert_same(read_splats(tmp_path / "one.ply"), expected)


def test_fewer_layers_are_decoded(run, stream, tmp_path):
    for layers, is_grey in ((0, True), (1, False)):
        words = ("--layers", layers, "--frames", "0:1", "--force")
        assert run("decode", stream, tmp_path / "a.ply", *words)[0] == 0
        assert (read_splats(tmp_path / "a.ply").sh[:, 1:] == 0).all() == is_grey


def test_a_stream_without_its_last_frame_gives_the_others(run, stream, tmp_path):
    cut = tmp_path / "cut.bin"
    cut.write_bytes(stream.read_bytes()[:-1])
    assert run("decode", cut, tmp_path / "%d.ply")[0] == 4
    assert run("decode", cut, tmp_path / "%d.ply", "--allow-partial")[0] == 0
    assert len(list(tmp_path.glob("*.ply"))) == LENGTH - 1


def test_damage_is_held_with_a_warning_if_that_is_asked_for(run, stream, tmp_path):
    data = bytearray(stream.read_bytes())
    chunk = [chunk for chunk in codec.info(stream)["chunks"] if chunk["type"] == "unit"][1]
    data[chunk["offset"] + chunk["length"] - 1] ^= 1
    damaged = tmp_path / "damaged.bin"
    damaged.write_bytes(data)
    assert run("decode", damaged, tmp_path / "%d.ply")[0] == 4
    code, out, err = run("decode", damaged, tmp_path / "%d.ply", "--allow-partial")
    assert (code, out) == (0, "")
    assert err.startswith("codec: warning: frame 1: 1 of 3 slices are damaged")
    code, out, _ = run("verify", damaged)
    assert (code, out) == (4, f"unit at {chunk['offset']}: damaged\n")
    assert run("verify", stream)[0] == 0


def test_a_frame_of_a_stream_is_drawn(run, stream, zoo, tmp_path):
    (tmp_path / "camera.json").write_bytes(pack_camera(CAMERA))
    words = ("--camera", tmp_path / "camera.json", "--out", tmp_path / "view.png", "--json")
    code, out, _ = run("render", stream, *words, "--frame", 3)
    assert (code, json.loads(out)) == (0, {"width": 48, "height": 32, "gaussians": 150})
    (frame,) = codec.decode_scene(stream, frames=(3, 4), zoo=zoo)
    found = np.asarray(Image.open(tmp_path / "view.png")).astype(int)
    np.testing.assert_array_equal(found, np.rint(255 * render(frame, CAMERA)))
    assert found.max() > 50
    assert run("render", stream, *words, "--force", "--frame", LENGTH)[0] == 2
    assert run("render", stream, *words, "--force", "--frame", 2)[0] == 0
    (tmp_path / "cut.bin").write_bytes(stream.read_bytes()[:-1])
    assert run("render", tmp_path / "cut.bin", *words, "--force")[0] == 4


def test_info_prints_frames_and_gaussians(run, stream):
    code, out, _ = run("info", stream)
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert code == 0
    assert (lines["kind"], lines["frames"], lines["gaussians"]) == ("scene", "5", "150")
    assert float(lines["bits_per_gaussian"]) > 0
    assert "width" not in lines


def test_faults_have_their_exit_codes_and_leave_no_file(run, source, stream, tmp_path):
    out, image = tmp_path / "out.bin", tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(image)
    other = tmp_path / "degrees"
    other.mkdir()
    for degree in range(2):
        write_splats(other / f"{degree}.ply", moving(5, 1, degree)[0])
    (tmp_path / "bad.ply").write_bytes(b"ply\n")
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "0.txt").write_text("0")
    there = tmp_path / "7.ply"
    there.write_bytes(b"there")
    kept = sorted(tmp_path.rglob("*"))
    for code, *words in (
        (2, "encode", source, out, "--target-bpp", 1),
        (2, "encode", source, out, "--target-size", 1000),
        (2, "encode", source, out, "--key-every", 0),
        (2, "encode", source, out, "--key-every", 1 << 20),
        (2, "encode", source, out, "--resume"),
        (2, "encode", source, out, "--dictionary", image),
        (2, "encode", source, out, "--lanes", 32),
        (2, "encode", source, there),
        (2, "encode", other, out),
        (2, "encode", image, out, "-m", "iscs", "--key-every", 3),
        (3, "encode", image, out, "-m", "gauss"),
        (3, "encode", tmp_path / "none.ply", out),
        (3, "encode", tmp_path / "none" / "%04d.ply", out),
        (3, "encode", tmp_path / "bad.ply", out),
        (3, "encode", tmp_path / "mixed", out),
        (2, "decode", stream, tmp_path / "all.ply"),
        (2, "decode", stream, tmp_path / "%04d.png"),
        (2, "decode", stream, tmp_path / "none" / "%04d.ply"),
        (2, "decode", stream, there, "--frames", "0:1"),
        (2, "decode", stream, tmp_path / "%d.ply", "--frames", "4:6"),
        (2, "decode", stream, tmp_path / "%d.ply", "--layers", 2),
        (2, "decode", stream, tmp_path / "%d.ply", "--region", "0,0,1,1"),
        (2, "decode", stream, "-"),
        (3, "decode", tmp_path / "none.bin", tmp_path / "%d.ply"),
    ):
        found, printed, err = run(*words)
        assert (found, printed, err.count("\n")) == (code, "", 1), (words, err)
        assert err.startswith("codec: ")
        assert sorted(tmp_path.rglob("*")) == kept


def test_a_file_that_exists_is_replaced_only_by_force(run, stream, tmp_path):
    (tmp_path / "2.ply").write_bytes(b"there")
    code, _, err = run("decode", stream, tmp_path / "%d.ply")
    assert (code, [path.name for path in tmp_path.iterdir()]) == (2, ["2.ply"])
    assert "--force" in err
    assert run("decode", stream, tmp_path / "%d.ply", "--force")[0] == 0
    assert len(read_splats(tmp_path / "2.ply")) == 150

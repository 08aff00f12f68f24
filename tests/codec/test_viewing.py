import json
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image

from codec.cameras import Camera, pack_camera
from codec.datasets.scenes import scripted
from codec.io.splats import write_splats
from codec.models.gauss.render import render

CAMERA = Camera.looking(eye=(0, -0.3, 0), at=(0, 0.2, 4), width=48, height=32, field=70)


@pytest.fixture
def run(run):
    return partial(run, "render")


@pytest.fixture
def scene(tmp_path):
    """Three frames, and the file of a camera."""
    found = scripted(500, frames=3, moving=0.3)
    for number in range(3):
        write_splats(tmp_path / f"{number:04d}.ply", found.frame(number))
    (tmp_path / "camera.json").write_bytes(pack_camera(CAMERA))
    return found


def read(path):
    return np.asarray(Image.open(path)).astype(int)


@pytest.mark.parametrize("number", [0, 2])
def test_a_frame_of_a_sequence_is_drawn_as_the_camera_sees_it(run, scene, tmp_path, number):
    for source in (tmp_path, tmp_path / "%04d.ply"):
        words = (source, "--camera", tmp_path / "camera.json", "--out", tmp_path / "a.png")
        assert run(*words, "--frame", number, "--force") == (0, "", "")
        want = np.rint(255 * render(scene.frame(number), CAMERA))
        np.testing.assert_array_equal(read(tmp_path / "a.png"), want)
        assert want.max() > 50


@pytest.mark.parametrize("extension", [".spz", ".splat"])
def test_other_formats_give_nearly_the_same_picture(run, scene, tmp_path, extension):
    write_splats(tmp_path / f"a{extension}", scene.frame(1))
    words = ("--camera", tmp_path / "camera.json", "--out", tmp_path / "a.png", "--json")
    code, out, _ = run(tmp_path / f"a{extension}", *words)
    assert (code, json.loads(out)) == (0, {"width": 48, "height": 32, "gaussians": 500})
    error = read(tmp_path / "a.png") - 255 * render(scene.frame(1), CAMERA)
    assert 10 * np.log10(255**2 / (error**2).mean()) > 35


def test_faults_have_their_exit_codes_and_leave_no_file(run, scene, tmp_path, monkeypatch):
    camera, frame, out = tmp_path / "camera.json", tmp_path / "0000.ply", tmp_path / "a.png"
    (tmp_path / "bad.ply").write_bytes(frame.read_bytes()[:-1])
    (tmp_path / "bad.json").write_text("{}")
    write_splats(tmp_path / "a.spz", scene.frame(0))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    for code, source, more in (
        (2, frame, ()),
        (2, frame, ("--camera", camera, "--frame", -1)),
        (2, frame, ("--camera", camera, "--frame", 1)),
        (2, frame, ("--camera", camera, "--device", "abacus")),
        (2, frame, ("--camera", camera, "--device", "cuda:99")),
        (2, frame, ("--camera", camera, "--out", tmp_path / "a.mp3")),
        (2, frame, ("--camera", camera, "--out", camera)),
        (3, tmp_path / "none.ply", ("--camera", camera)),
        (3, tmp_path / "bad.ply", ("--camera", camera)),
        (3, frame, ("--camera", tmp_path / "bad.json")),
        (3, frame, ("--camera", tmp_path / "none.json")),
        (3, camera, ("--camera", camera)),
        (5, tmp_path / "a.spz", ("--camera", camera)),
        (6, frame, ("--camera", camera, "--max-pixels", 48 * 32 - 1)),
    ):
        found, printed, err = run(source, "--out", out, *more)
        assert (found, printed, err.count("\n")) == (code, "", 1), err
        assert err.startswith("codec: ")
        assert not out.exists()

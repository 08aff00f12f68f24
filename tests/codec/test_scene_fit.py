"""A folder of videos and cameras in, a stream out; the first camera is not looked at."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import codec
from codec.api import EncodeOptions, encode_source
from codec.datasets.analytic import analytic
from codec.datasets.multiview import read_multiview, write_multiview
from codec.models.gauss.fitting import Fitting
from codec.models.gauss.render import render
from codec.progress import Stopwatch
from codec.weights import SHIPPED
from tests.codec.toy_scene import make_scene_zoo

FRAMES = 2
SCENE = analytic(frames=FRAMES, cameras=4, size=(32, 24))


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Few steps, but more for more effort."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Fitting,
            "of",
            lambda effort, pixels: Fitting(pixels // 8, steps=60 + 20 * effort, epochs=3),
        )
        yield


@pytest.fixture(scope="module")
def zoo():
    return SHIPPED


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("views") / "scene"
    write_multiview(path, SCENE.cameras, map(SCENE.frame, range(FRAMES)))
    return path


@pytest.fixture(scope="module")
def stream(folder):
    return codec.encode_scene(folder, quality=70)


def test_a_folder_of_videos_becomes_a_stream(run, folder, stream, tmp_path):
    target = tmp_path / "out.bin"
    code, out, error = run("encode", folder, target, "-q", "70", "--json")  # gauss by default
    said = json.loads(out)
    assert (code, error) == (0, "")
    assert target.read_bytes() == stream  # and the same folder makes the same stream
    assert (said["bytes"], said["frames"], said["quality"]) == (len(stream), FRAMES, 70)
    assert said["gaussians"] == codec.info(stream)["gaussians"] > 0
    assert said["seconds"]["transform"] > said["seconds"]["entropy"]


def test_what_is_decoded_looks_like_the_videos(folder, stream):
    views = read_multiview(folder)
    frames = list(codec.decode_scene(stream))
    assert len(frames) == FRAMES
    for frame, pictures in zip(frames, views, strict=True):
        for number in range(1, 4):
            x_hat, x = render(frame, views.cameras[number]), pictures[number] / 255
            assert np.square(x_hat - x).mean() < 0.5 * np.square(x - x.mean()).mean()


def test_the_camera_held_out_is_not_looked_at(folder, stream, tmp_path):
    other = tmp_path / "scene"
    shutil.copytree(folder, other)
    shutil.copy(folder / "cam02.mp4", other / "cam00.mp4")
    assert codec.encode_scene(other, quality=70) == stream


def test_the_search_ends_when_its_time_is_over(folder):
    short = codec.encode_scene(folder, quality=70, time_limit=1e-3)
    first, last = codec.decode_scene(short)
    np.testing.assert_array_equal(first.means, last.means)


def test_progress_is_told_from_the_first_step_to_the_last_moment(folder):
    told = []
    encode_source(
        folder,
        EncodeOptions(quality=70, model="gauss"),
        watch=Stopwatch(),
        progress=lambda share, note="": told.append((share, note)),
    )
    shares = [share for share, _ in told]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert 0.9 < shares[-1] <= 1
    assert told[-1][1] == f"moment {FRAMES} of {FRAMES}"


@pytest.mark.parametrize("at", [0.2, 0.95])  # in the first moment, and in the second
def test_an_interrupt_ends_the_search_with_what_it_has(folder, stream, at):
    def progress(share, note=""):
        if share > at and not told:
            told.append(share)
            raise KeyboardInterrupt

    told = []
    options = EncodeOptions(quality=70, model="gauss", take_interrupt=True)
    made = encode_source(folder, options, watch=Stopwatch(), progress=progress).stream
    first, last = codec.decode_scene(made)
    whole = next(codec.decode_scene(stream))
    assert np.array_equal(first.means, whole.means) == (at > 0.5)
    assert len(first)
    if at < 0.5:
        np.testing.assert_array_equal(first.means, last.means)


def test_an_interrupt_that_nobody_takes_goes_through(folder):
    def progress(share, note=""):
        raise KeyboardInterrupt

    options = EncodeOptions(quality=70, model="gauss")
    with pytest.raises(KeyboardInterrupt):
        encode_source(folder, options, watch=Stopwatch(), progress=progress)


def test_effort_is_heard(folder, stream):
    assert codec.encode_scene(folder, quality=70, effort=1) != stream


def test_what_cannot_be_fitted_is_refused(run, folder, tmp_path):
    target = tmp_path / "out.bin"
    two = tmp_path / "two"
    write_multiview(two, SCENE.cameras[:2], (SCENE.frame(0)[:2] for _ in range(1)))
    cases = [
        ((two,), 2, "want 2 and one held out, got 2"),
        ((folder, "--target-size", "9"), 2, "scenes take a quality"),
        ((folder, "-m", "iscs"), 3, ""),
    ]
    for (source, *options), expected, reason in cases:
        code, _, error = run("encode", source, target, *options)
        assert (code, target.exists()) == (expected, False)
        assert reason in error
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "cam02.mp4").write_bytes(b"nothing")
    code, _, error = run("encode", broken, target)
    assert (code, target.exists()) == (3, False)
    assert "cam02.mp4" in error


def test_a_family_that_fits_nothing_says_so(folder, tmp_path):
    with pytest.raises(codec.errors.UsageError, match="fits nothing"):
        codec.encode_scene(folder, zoo=make_scene_zoo(tmp_path / "zoo"))


def test_decoding_does_not_load_what_fits(stream):
    program = (
        "import sys, codec; list(codec.decode_scene(sys.stdin.buffer.read())); "
        "print(*(name for name in sys.modules if name.startswith('codec.models.gauss.') "
        "and name.split('.')[-1] in ('fitting', 'following', 'growing', 'descent')))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, input=stream
    )
    assert result.stdout.strip() == b""

import json
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

import codec
from codec.bitstream import ChunkType, unpack
from codec.cli import main
from codec.io.video import Look, read_video, video_writer
from codec.journal import Journal
from codec.models.nerv import Nerv
from codec.models.nerv import fit as fitting
from tests.codec.test_video_files import packets, tone
from tests.video_clips import moving

FRAMES = 5


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A video of two scenes with sound."""
    path = tmp_path_factory.mktemp("source") / "clip.mkv"
    clip = moving(FRAMES, 40, 56)
    with video_writer(str(path), Look(56, 40, Fraction(5, 2)), tone()) as write:
        for frame in (*clip[:3], *(255 - clip[3:])):
            write(frame)
    return path


@pytest.fixture(scope="module")
def stream(source):
    path = source.with_name("stream.bin")
    assert main(["encode", str(source), str(path), "-m", "nerv", "-q", "90"]) == 0
    return path


def frames_of(path):
    return np.stack(list(read_video(path, max_pixels=1 << 20).frames))


def test_encoding_says_what_it_made(source, tmp_path, capsys):
    target = tmp_path / "out.bin"
    assert main(["encode", str(source), str(target), "-m", "nerv", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    info = codec.info(target)
    assert said["bytes"] == target.stat().st_size
    assert said["bpp"] == pytest.approx(info["bpp"])
    assert (said["width"], said["height"], said["frames"]) == (56, 40, FRAMES)
    assert (said["model"], said["quality"]) == ("nerv/light", 60)
    assert said["model_id"] == info["model_id"]
    assert set(said["seconds"]) == {"load", "transform", "entropy", "total"}


def test_a_video_comes_back_with_its_rate_and_sound(source, stream, tmp_path, capsys):
    target = tmp_path / "back.mkv"
    assert main(["decode", str(stream), str(target), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["width"], said["height"], said["frames"]) == (56, 40, FRAMES)
    clip = read_video(target, max_pixels=1 << 20)
    assert clip.look == read_video(source, max_pixels=1 << 20).look
    expected = np.stack(list(codec.decode_video(stream)))
    np.testing.assert_array_equal(expected, np.stack(list(clip.frames)))
    assert packets(clip.audio) == packets(unpack(stream.read_bytes()).find(ChunkType.AUDIO))
    assert packets(clip.audio) == packets(tone())
    assert main(["decode", str(stream), str(target)]) == 2
    assert main(["decode", str(stream), str(target), "--force"]) == 0


def test_some_frames_go_into_a_folder(stream, tmp_path):
    assert main(["decode", str(stream), f"{tmp_path}/frames/", "--frames", "2:4"]) == 0
    assert len(list((tmp_path / "frames").iterdir())) == 2
    assert main(["decode", str(stream), f"{tmp_path}/other/", "--frames", "4:6"]) == 2
    assert main(["decode", str(stream), f"{tmp_path}/other/", "--frames", "four"]) == 2
    assert not (tmp_path / "other").exists()


def test_y4m_goes_to_standard_output(stream):
    command = [sys.executable, "-m", "codec", "decode", str(stream), "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    head, _, rest = done.stdout.partition(b"\n")
    assert head.startswith(b"YUV4MPEG2 W56 H40 F5:2 ")
    assert len(rest) == FRAMES * (len(b"FRAME\n") + 56 * 40 * 3 // 2)


def test_a_stream_without_its_last_group_gives_the_others(stream, tmp_path):
    cut = tmp_path / "cut.bin"
    cut.write_bytes(stream.read_bytes()[:-1])
    assert main(["decode", str(cut), str(tmp_path / "a.mkv")]) == 4
    assert main(["decode", str(cut), str(tmp_path / "a.mkv"), "--allow-partial"]) == 0
    np.testing.assert_array_equal(
        np.stack(list(codec.decode_video(stream)))[:3], frames_of(tmp_path / "a.mkv")
    )


def test_what_is_no_video_exits_3_and_what_cannot_be_asked_exits_2(source, tmp_path, capsys):
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(bytes(range(256)))
    target = str(tmp_path / "out.bin")
    assert main(["encode", str(noise), target, "-m", "nerv"]) == 3
    assert main(["encode", str(tmp_path / "none.mp4"), target, "-m", "nerv"]) == 3
    assert main(["encode", str(source), target, "-m", "nerv", "--target-psnr", "30"]) == 2
    assert main(["encode", str(source), target, "-m", "nerv", "--lanes", "32"]) == 2
    assert main(["encode", str(source), target, "-m", "nerv", "--max-pixels", "100"]) == 6
    assert not (tmp_path / "out.bin").exists()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("codec: ") for line in lines)


def test_verify_finds_damage_in_a_group(stream, tmp_path, capsys):
    assert main(["verify", str(stream)]) == 0
    data = bytearray(stream.read_bytes())
    data[-20] ^= 1
    damaged = tmp_path / "damaged.bin"
    damaged.write_bytes(data)
    assert main(["verify", str(damaged)]) == 4
    assert "group at" in capsys.readouterr().out


def test_a_time_limit_ends_an_encode(source, tmp_path):
    target = tmp_path / "out.bin"
    words = ["encode", str(source), str(target), "-m", "nerv", "--effort", "9"]
    assert main([*words, "--time-limit", "1"]) == 0
    assert len(list(codec.decode_video(target))) == FRAMES


def test_an_interrupted_encode_goes_on_where_it_was(source, stream, tmp_path, monkeypatch):
    target, words = tmp_path / "out.bin", ["-m", "nerv", "-q", "90"]
    walk, seen = Nerv.analyse_group, []

    def fit(self, x, *rest):
        seen.append(len(x))
        if len(seen) == 2:
            raise MemoryError
        return walk(self, x, *rest)

    monkeypatch.setattr(Nerv, "analyse_group", fit)
    assert main(["encode", str(source), str(target), *words]) == 6
    assert [path.name for path in tmp_path.iterdir()] == [".out.bin.groups"]
    assert main(["encode", str(source), str(target), *words, "--resume"]) == 0
    assert seen == [3, 2, 2]
    assert target.read_bytes() == stream.read_bytes()
    assert list(tmp_path.iterdir()) == [target]


def test_a_group_whose_fit_was_killed_goes_on_where_it_was(source, stream, tmp_path, monkeypatch):
    target, words = tmp_path / "out.bin", ["-m", "nerv", "-q", "90"]
    step, made = fitting._Descent.step, []

    def counted(self, share):
        if len(made) == 85:  # the first group has 60, the second 40
            made.append("killed")
            raise MemoryError
        made.append(share)
        step(self, share)

    monkeypatch.setattr(fitting, "KEPT_SECONDS", 0.0)
    monkeypatch.setattr(fitting._Descent, "step", counted)
    assert main(["encode", str(source), str(target), *words]) == 6
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {".out.bin.groups", ".out.bin.groups.unfinished"}
    assert main(["encode", str(source), str(target), *words, "--resume"]) == 0
    assert made == [k / 60 for k in range(60)] + [k / 40 for k in range(25)] + ["killed"] + [
        k / 40 for k in range(25, 40)
    ]
    assert target.read_bytes() == stream.read_bytes()
    assert list(tmp_path.iterdir()) == [target]


def test_what_is_left_of_a_fit_that_is_damaged_or_another_is_not_taken(tmp_path, caplog):
    frames, others = [np.zeros((2, 3, 3), np.uint8)], [np.ones((2, 3, 3), np.uint8)]
    state = {"a": torch.arange(3), "b": torch.tensor(0.5, dtype=torch.float64)}

    def bookmark(head=("a", 1.0), own=frames, resume=True):
        journal = Journal(tmp_path / "groups", resume=resume)
        journal.begin(head)
        return journal.bookmark(own)

    assert bookmark().find() is None
    bookmark().keep({"a": torch.zeros(9)})
    bookmark(resume=False).keep(state)
    (path,) = tmp_path.iterdir()
    found = bookmark().find()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())
    assert bookmark(resume=False).find() is None
    assert not caplog.records
    assert bookmark(head=["a", 2.0]).find() is None
    assert bookmark(own=others).find() is None
    assert len(caplog.records) == 2
    whole = path.read_bytes()
    for place in range(len(whole)):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 1]) + whole[place:]):
            path.write_bytes(damaged)
            assert bookmark().find() is None
    assert all("damaged or of another encode" in record.message for record in caplog.records)


def test_a_group_that_is_done_leaves_no_fit(tmp_path):
    frames = [np.zeros((2, 3, 3), np.uint8)]
    journal = Journal(tmp_path / "groups", resume=True)
    journal.begin(["a"])
    journal.bookmark(frames).keep({"a": torch.zeros(2)})
    journal.add(frames, b"payload")
    assert [path.name for path in tmp_path.iterdir()] == ["groups"]
    journal.bookmark(frames).keep({"a": torch.zeros(2)})
    journal.close()
    assert not list(tmp_path.iterdir())


def test_groups_of_another_encode_or_cut_lines_are_not_taken(tmp_path, caplog):
    frames = [np.zeros((2, 3, 3), np.uint8)], [np.ones((2, 3, 3), np.uint8)]
    path = tmp_path / "groups"
    journal = Journal(path, resume=False)
    journal.begin(["a", 1.0])
    for number, own in enumerate(frames):
        journal.add(own, bytes([number]))

    def found(head, resume=True):
        again = Journal(path, resume=resume)
        again.begin(head)
        return [again.find(own) for own in frames]

    assert found(["a", 1.0]) == [b"\0", b"\1"]
    assert found(["a", 1.0], resume=False) == [None, None]
    assert found(["a", 2.0]) == [None, None]
    assert "another encode" in caplog.text
    path.write_text(path.read_text()[:-3])
    assert found(["a", 1.0]) == [b"\0", None]

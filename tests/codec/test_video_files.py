import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from codec.errors import InputError, LimitError, UsageError
from codec.io.video import Clip, Look, check_target, read_video, video_writer

MOST = 1 << 20


def smooth(count, height=48, width=64):
    """Frames that coding hardly changes, `(height, width, 3)` each."""
    y, x = np.indices((height, width))
    planes = [[40 + 2 * x + 3 * n, 60 + y, 200 - x - y] for n in range(count)]
    return [np.stack(own, axis=-1).astype(np.uint8) for own in planes]


def write(target, look, frames, audio=b""):
    with video_writer(str(target), look, audio) as put:
        for frame in frames:
            put(frame)


def breaking():
    yield from smooth(2)
    raise ZeroDivisionError


def read(path):
    clip = read_video(path, max_pixels=MOST)
    return clip, np.stack(list(clip.frames))


def tone():
    """Two seconds of sound in Matroska, as `Clip.audio` is."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("aac", rate=8000)
        stream.layout = "mono"
        for begin in range(0, 16000, 1000):
            wave = np.sin((begin + np.arange(1000)) / 5).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, begin
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def packets(data):
    with av.open(io.BytesIO(data) if isinstance(data, bytes) else str(data)) as container:
        return [bytes(p) for p in container.demux(container.streams.audio[0]) if p.size]


def test_rgb_comes_back_from_ffv1_as_it_was(tmp_path):
    look = Look(64, 48, Fraction(30000, 1001))
    write(tmp_path / "a.mkv", look, smooth(4))
    clip, frames = read(tmp_path / "a.mkv")
    assert clip.look == look
    assert clip.count == 4
    np.testing.assert_array_equal(np.stack(smooth(4)), frames)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", [1, 2, 5, 6, 7])
@pytest.mark.parametrize("extension", ["mkv", "mp4", "mov"])
def test_rate_matrix_and_range_are_kept(tmp_path, extension, matrix, full_range):
    look = Look(64, 48, Fraction(24), matrix, full_range)
    write(tmp_path / f"a.{extension}", look, smooth(4))
    clip, frames = read(tmp_path / f"a.{extension}")
    assert clip.look == look
    assert np.abs(np.stack(smooth(4)).astype(int) - frames).mean() < 2


@pytest.mark.parametrize(("width", "height"), [(64, 48), (63, 47)])
@pytest.mark.parametrize("look", [(0, True), (1, False), (2, True)])
def test_y4m_is_what_others_read(tmp_path, look, width, height):
    frames = smooth(3, height, width)
    write(tmp_path / "a.y4m", Look(width, height, Fraction(25), *look), frames)
    clip, found = read(tmp_path / "a.y4m")
    assert (clip.look.width, clip.look.height, clip.look.rate) == (width, height, 25)
    assert clip.look.full_range == (look == (2, True))
    assert np.abs(np.stack(frames).astype(int) - found).mean() < 2


def test_a_folder_gets_a_png_for_each_frame(tmp_path):
    write(f"{tmp_path}/frames/", Look(64, 48, Fraction(25)), smooth(3))
    paths = sorted((tmp_path / "frames").iterdir())
    assert [path.name for path in paths] == ["000000.png", "000001.png", "000002.png"]
    for path, frame in zip(paths, smooth(3), strict=True):
        np.testing.assert_array_equal(frame, np.asarray(Image.open(path)))


@pytest.mark.parametrize("extension", ["mkv", "mp4"])
def test_sound_passes_through_untouched(tmp_path, extension):
    sound = tone()
    write(tmp_path / f"a.{extension}", Look(64, 48, Fraction(25)), smooth(50), sound)
    clip, frames = read(tmp_path / f"a.{extension}")
    assert len(frames) == 50
    assert packets(clip.audio) == packets(sound) == packets(tmp_path / f"a.{extension}")
    assert clip.audio == read(tmp_path / f"a.{extension}")[0].audio


def test_an_output_without_sound_says_so(tmp_path, caplog):
    write(tmp_path / "a.y4m", Look(64, 48, Fraction(25)), smooth(2), tone())
    assert "sound is left out" in caplog.text


def test_a_video_that_is_turned_is_read_upright(tmp_path):
    write(tmp_path / "a.mkv", Look(64, 48, Fraction(25)), smooth(2))
    with (
        av.open(str(tmp_path / "a.mkv")) as source,
        av.open(str(tmp_path / "turned.mkv"), "w") as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV writes no rotation")
        stream.set_display_rotation(90)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    clip, frames = read(tmp_path / "turned.mkv")
    assert (clip.look.width, clip.look.height) == (48, 64)
    np.testing.assert_array_equal(np.rot90(smooth(2)[0], 1), frames[0])


def test_what_is_no_video_is_an_input_error(tmp_path):
    Image.fromarray(smooth(1)[0]).save(tmp_path / "a.png")
    write(tmp_path / "a.mkv", Look(64, 48, Fraction(25)), smooth(2))
    for name, content in (
        ("noise.mp4", bytes(range(256)) * 9),
        ("empty.mkv", b""),
        ("head.mkv", (tmp_path / "a.mkv").read_bytes()[:100]),
        ("sound.mka", tone()),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError):
            list(read_video(tmp_path / name, max_pixels=MOST).frames)
    with pytest.raises(InputError):
        read_video(tmp_path / "missing.mp4", max_pixels=MOST)


def test_frames_over_the_limit_are_refused(tmp_path):
    write(tmp_path / "a.mkv", Look(64, 48, Fraction(25)), smooth(2))
    assert read_video(tmp_path / "a.mkv", max_pixels=64 * 48).look.width == 64
    with pytest.raises(LimitError):
        read_video(tmp_path / "a.mkv", max_pixels=64 * 48 - 1)


@pytest.mark.parametrize("shape", [(4, 48, 64), (0, 48, 64, 3), (2, 48, 64, 4)])
def test_an_array_that_is_no_video_is_refused(shape):
    with pytest.raises(UsageError):
        Clip.from_array(np.zeros(shape, np.uint8))


def test_a_file_is_whole_or_as_it_was(tmp_path):
    look = Look(64, 48, Fraction(25))
    for target in ("a.mkv", "a.y4m", "frames/"):
        write(f"{tmp_path}/{target}", look, smooth(1))
    before = sorted(tmp_path.rglob("*"))
    for target in ("a.mkv", "a.y4m", "frames/"):
        with pytest.raises(ZeroDivisionError):
            write(f"{tmp_path}/{target}", look, breaking())
    assert sorted(tmp_path.rglob("*")) == before
    assert len(read(tmp_path / "a.mkv")[1]) == 1
    for target in ("a.mkv", "a.y4m", "frames/"):
        write(f"{tmp_path}/{target}", look, smooth(2))
    assert len(list((tmp_path / "frames").iterdir())) == 2
    assert [len(read(tmp_path / name)[1]) for name in ("a.mkv", "a.y4m")] == [2, 2]


def test_a_place_that_cannot_be_written_to_is_refused_before_any_work(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_bytes(b"")
    for target in ("a.avi", "a", "full"):
        with pytest.raises(UsageError):
            check_target(f"{tmp_path}/{target}", force=True)
    with pytest.raises(UsageError):
        check_target(f"{tmp_path}/full/", force=False)
    for target in ("a.mkv", "a.MP4", "a.y4m", "new/"):
        check_target(f"{tmp_path}/{target}", force=False)
    check_target(f"{tmp_path}/full/", force=True)
    with pytest.raises(UsageError):
        write(tmp_path / "missing" / "a.mkv", Look(64, 48, Fraction(25)), smooth(1))

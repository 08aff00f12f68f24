import shutil

import av
import numpy as np
import pytest

from codec.cameras import Camera
from codec.datasets.multiview import MultiView, read_multiview, write_multiview
from codec.errors import InputError, UsageError

WIDTH, HEIGHT = 24, 16


def cameras(count, width=WIDTH, height=HEIGHT):
    return [
        Camera.looking(
            eye=(n - 1, 0.3 * n, -0.2 * n), at=(0, 0.5, 4), width=width, height=height, field=60
        )
        for n in range(count)
    ]


def pictures(views, frames, width=WIDTH, height=HEIGHT):
    return np.random.default_rng(frames).integers(
        0, 256, (frames, views, height, width, 3), np.uint8
    )


@pytest.fixture
def scene(tmp_path):
    """Three views of four frames in a folder."""
    write_multiview(tmp_path / "scene", cameras(3), iter(pictures(3, 4)))
    return tmp_path / "scene"


def replace_poses(folder, change):
    np.save(folder / "poses_bounds.npy", change(np.load(folder / "poses_bounds.npy")))


def other_video(folder, name, **size):
    """One of the folder's videos becomes another, with its own count of frames or size."""
    frames = size.pop("frames", 4)
    write_multiview(folder.parent / "other", cameras(1, **size), pictures(1, frames, **size))
    shutil.move(folder.parent / "other" / "cam00.mp4", folder / name)


def test_what_is_read_is_what_was_written(scene):
    found = read_multiview(scene)
    assert isinstance(found, MultiView)
    assert (found.frames, found.held_out, len(found.cameras)) == (4, 0, 3)
    for _ in range(2):  # each iteration begins anew
        views = list(found)
        assert views[0].dtype == np.uint8
        np.testing.assert_array_equal(views, pictures(3, 4))
    points = np.random.default_rng(0).uniform([-1, -0.5, 3], [1, 1.5, 5], (50, 3))
    for ours, theirs in zip(cameras(3), found.cameras, strict=True):
        assert (theirs.width, theirs.height) == (WIDTH, HEIGHT)
        assert np.abs(ours.project(points) - theirs.project(points)).max() < 0.01


def test_sides_may_be_odd(tmp_path):
    write_multiview(tmp_path, cameras(1, 23, 15), pictures(1, 2, 23, 15))
    np.testing.assert_array_equal(list(read_multiview(tmp_path)), pictures(1, 2, 23, 15))


def test_rows_have_the_axes_down_right_back_and_the_focal_length_of_larger_pictures(scene):
    # At (1, 2, 3), turned to the world's x: right is -z, down is y.
    axes = np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]], float)
    row = np.column_stack([axes.T, [1, 2, 3], [2 * HEIGHT, 2 * WIDTH, 60]])
    assert np.linalg.det(axes) == 1
    replace_poses(scene, lambda rows: np.tile([*row.reshape(-1), 1, 9], (3, 1)))
    camera = read_multiview(scene).cameras[1]
    np.testing.assert_allclose(camera.eye, [1, 2, 3])
    points = np.array([[6, 2, 3], [6, 2, 2], [6, 3, 3]], float)
    want = [[WIDTH / 2, HEIGHT / 2], [WIDTH / 2 + 6, HEIGHT / 2], [WIDTH / 2, HEIGHT / 2 + 6]]
    np.testing.assert_allclose(camera.project(points), want)


def test_numbers_of_cameras_may_be_missing_and_rows_follow_the_names(scene):
    (scene / "cam00.mp4").unlink()
    (scene / "cam01.mp4").rename(scene / "cam13.mp4")
    (scene / "notes.txt").touch()
    replace_poses(scene, lambda rows: rows[[2, 1]])
    found = read_multiview(scene)
    assert [path.name for path in found.paths] == ["cam02.mp4", "cam13.mp4"]
    assert found.held_out == 0
    np.testing.assert_array_equal(list(found), pictures(3, 4)[:, [2, 1]])
    np.testing.assert_allclose(found.cameras[0].eye, cameras(3)[2].eye)


def test_the_shortest_video_says_how_many_frames_there_are(scene):
    other_video(scene, "cam01.mp4", frames=2)
    found = read_multiview(scene)
    assert found.frames == 2
    views = list(found)
    assert len(views) == 2
    np.testing.assert_array_equal(np.stack(views)[:, 0], pictures(3, 4)[:2, 0])


def test_smaller_pictures_are_means_and_points_stay_in_them(scene):
    found = read_multiview(scene, downscale=4)
    squares = pictures(3, 4).reshape(4, 3, HEIGHT // 4, 4, WIDTH // 4, 4, 3)
    assert np.abs(np.stack(list(found)) - squares.mean((3, 5))).max() <= 0.5
    points = np.array([[0.1, 0.4, 4]])
    for ours, theirs in zip(cameras(3), found.cameras, strict=True):
        assert (theirs.width, theirs.height) == (WIDTH // 4, HEIGHT // 4)
        np.testing.assert_allclose(4 * theirs.project(points), ours.project(points))


@pytest.mark.parametrize("downscale", [0, 3, 32])
def test_downscale_divides_both_sides(scene, downscale):
    with pytest.raises(UsageError, match="divisor of 24x16"):
        read_multiview(scene, downscale=downscale)


def cut(folder):
    video = folder / "cam02.mp4"
    video.write_bytes(video.read_bytes()[:300])


@pytest.mark.parametrize(("spoil", "match"), [
    (lambda folder: shutil.rmtree(folder), "cannot be read"),
    (lambda folder: [path.unlink() for path in folder.glob("*.mp4")], "no cam00"),
    (lambda folder: (folder / "poses_bounds.npy").unlink(), "poses_bounds.npy: cannot be read"),
    (lambda folder: (folder / "poses_bounds.npy").write_bytes(b"no array"), "no array"),
    (lambda folder: (folder / "poses_bounds.npy").write_bytes(b""), "no array"),
    (lambda folder: (folder / "cam01.mp4").unlink(), "want 2 rows"),
    (lambda folder: replace_poses(folder, lambda rows: rows[:2]), "want 3 rows"),
    (lambda folder: replace_poses(folder, lambda rows: rows[:, :15]), "float64"),
    (lambda folder: replace_poses(folder, lambda rows: rows.astype(np.float32)), "float64"),
    (lambda folder: replace_poses(folder, lambda rows: 0 * rows), "cam00.mp4: want a width"),
    (lambda folder: replace_poses(folder, lambda rows: np.nan * rows), "want a width"),
    (lambda folder: replace_poses(folder, lambda rows: rows**2), "rotation"),
    (lambda folder: replace_poses(folder, lambda rows: 1e300 * rows), "want 4x4 numbers"),
    (lambda folder: other_video(folder, "cam01.mp4", width=32), "cam01.mp4: want 24x16"),
    (lambda folder: (folder / "cam01.mp4").write_bytes(b"no video"), "cam01.mp4: no video"),
    (cut, "cam02.mp4: no video"),
])  # fmt: skip
def test_folders_that_are_no_scene_are_refused(scene, spoil, match):
    spoil(scene)
    with pytest.raises(InputError, match=match):
        read_multiview(scene)


def test_a_head_that_claims_more_than_there_is_is_refused(scene):
    head = "{'descr': '<f8', 'fortran_order': False, 'shape': (%d, 17)}"
    for count in (4, 1 << 40, 1 << 70, -1):
        text = (head % count).ljust(117) + "\n"
        with (scene / "poses_bounds.npy").open("wb") as file:
            file.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
            file.write(bytes(3 * 17 * 8))
        with pytest.raises(InputError):
            read_multiview(scene)


def test_a_video_that_ends_before_it_said_is_an_input_error(scene):
    found = read_multiview(scene)
    other_video(scene, "cam01.mp4", frames=3)
    views = iter(found)
    for _ in range(3):
        next(views)
    with pytest.raises(InputError, match="want 4 frames, got 3"):
        next(views)


def test_what_the_layout_cannot_state_is_refused(tmp_path):
    two = cameras(2)
    wide = Camera(WIDTH, HEIGHT, two[0].K * [[2], [1], [1]], two[0].world_to_camera)
    right = pictures(2, 1)
    for own, frames in [
        ([], right), (cameras(101), right), (two, right[:0]), (two, right[:, :1]),
        (two, right / 255), (two, right[:, :, 1:]), ([wide, two[1]], right),
        ([two[0], cameras(1, 32)[0]], right),
    ]:  # fmt: skip
        shutil.rmtree(tmp_path / "scene", ignore_errors=True)
        with pytest.raises(UsageError, match="want"):
            write_multiview(tmp_path / "scene", own, frames)
        assert not (tmp_path / "scene" / "poses_bounds.npy").exists()


def test_nothing_that_is_there_is_written_over(scene):
    with pytest.raises(UsageError, match="files in it"):
        write_multiview(scene, cameras(3), pictures(3, 4))
    with pytest.raises(UsageError, match="cannot be written"):
        write_multiview(scene / "cam00.mp4", cameras(3), pictures(3, 4))
    assert read_multiview(scene).frames == 4


def test_the_videos_are_h264(scene):
    with av.open(str(scene / "cam00.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"

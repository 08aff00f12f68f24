import numpy as np
import pytest

from codec.datasets import analytic as shapes
from codec.datasets.analytic import analytic


@pytest.fixture(scope="module")
def scene():
    return analytic(frames=12, cameras=3, size=(96, 72))


@pytest.fixture(scope="module")
def seen(scene):
    """All frames, `(T, V, H, W, 3)`."""
    return np.stack([scene.frame(number) for number in range(scene.frames)]).astype(int)


def pixels(seen, scene, view, points):
    """`(T, N, 3)` colours where a camera sees points of the world."""
    x, y = scene.cameras[view].project(np.array(points, float)).T.astype(int)
    return seen[:, view, y, x]


def outline(scene, view, centre, reach):
    """`(H, W)` pixels not further than `reach` units from where a camera sees a point."""
    camera = scene.cameras[view]
    (x, y), depth = camera.project(np.array([centre]))[0], np.linalg.norm(centre - camera.eye)
    rows, columns = np.indices((camera.height, camera.width)) + 0.5
    # A ball is a little larger than its radius at the edge of a picture.
    return np.hypot(rows - y, columns - x) <= 1.3 * reach * camera.K[0, 0] / depth + 1


def test_frames_are_pictures_of_all_cameras():
    scene = analytic(frames=2, cameras=4, size=(21, 15), seed=3)
    assert scene.frame(1).shape == (4, 15, 21, 3)
    assert scene.frame(1).dtype == np.uint8
    for number in (-1, 2):
        with pytest.raises(IndexError):
            scene.frame(number)


def test_the_same_arguments_give_the_same_pictures_and_another_seed_others():
    one, same, other = (
        analytic(cameras=2, size=(24, 18), seed=seed).frame(3) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).mean() > 0.3


@pytest.mark.parametrize("count", [2, 3, 8, 9, 12])
def test_the_camera_in_the_middle_is_held_out(count):
    scene = analytic(cameras=count)
    places = [camera.eye[0] for camera in scene.cameras]
    assert places == sorted(places)
    least = 0 if count % 2 else places[count // 2] - places[count // 2 - 1]
    assert abs(places[scene.held_out]) <= least / 2 + 1e-9


@pytest.mark.parametrize("bad", [{"frames": 0}, {"cameras": 1}, {"size": (0, 4)}])
def test_arguments_out_of_their_range_are_refused(bad):
    with pytest.raises(ValueError, match="want"):
        analytic(**bad)


def test_all_cameras_see_a_point_of_the_floor_in_its_square(scene, seen):
    x, z = (each.ravel() for each in np.meshgrid([-0.75, -0.25, 0.25], [3.25, 3.75]))
    points = np.stack([x, np.ones(6), z], 1)
    bright = (np.floor(x / shapes.SQUARE) + np.floor(z / shapes.SQUARE)) % 2 == 1
    for view in range(3):
        found = pixels(seen, scene, view, points)[0].sum(1)
        assert found[bright].min() > found[~bright].max() + 100


def test_only_what_moves_changes_and_where_it_is(scene, seen):
    changed = (seen[1:] != seen[:-1]).any(-1)
    guest = outline(scene, 1, shapes.GUEST[0], 0.4)
    for number in range(scene.frames - 1):
        may = outline(scene, 1, shapes.LAMP[0], 0.7)
        may |= outline(scene, 1, shapes.BLOB, shapes.BLOB_RADIUS + shapes.BLOB_CHANGE)
        if number + 1 in (scene.appears, scene.vanishes):
            may |= guest
        for own in (number, number + 1):
            phase = 2 * np.pi * own / shapes.PERIOD
            way = [np.sin(phase), np.sin(2 * phase), np.cos(phase)]
            may |= outline(scene, 1, shapes.BALL + shapes.PATH * np.array(way), shapes.BALL_RADIUS)
        assert may.mean() < 0.3
        assert changed[number, 1].any()
        assert not (changed[number, 1] & ~may).any()


def test_boxes_and_the_floor_are_equal_in_all_frames(scene, seen):
    (x, y, z), (width, height, depth) = shapes.BOXES[0]
    front = [[x, y - height / 2, z - depth], [x - width / 2, y - 0.1, z - depth], [0, 1, 3.3]]
    for view in range(3):
        found = pixels(seen, scene, view, front)
        assert (found == found[0]).all()
        assert found.max() > 0


def test_the_ball_moves_and_spins():
    scene = analytic(frames=shapes.PERIOD + 1, cameras=2)
    first, later, round_once = (scene.frame(n)[1].astype(int) for n in (0, 5, shapes.PERIOD))
    centre = np.array(shapes.BALL) + shapes.PATH * np.array([0, 0, 1])
    there = outline(scene, 1, centre, 0.6 * shapes.BALL_RADIUS)
    assert (np.abs(first - later).sum(-1)[there] > 10).mean() > 0.8
    # It is where it was, and another side is in front.
    spun = np.abs(first - round_once).sum(-1)
    assert (spun[there] > 10).mean() > 0.8
    assert (spun[~outline(scene, 1, centre, shapes.BALL_RADIUS)] > 0).mean() < 0.1  # the lamp


def test_the_guest_is_there_from_the_frame_that_it_appears_in_until_it_vanishes(scene, seen):
    assert (scene.appears, scene.vanishes) == (4, 8)
    (x, y, z), (_, _, depth) = shapes.GUEST
    for view in range(3):
        found = pixels(seen, scene, view, [[x, y, z - depth]])[:, 0]
        there = (found == found[4]).all(1)
        np.testing.assert_array_equal(there, [4 <= n < 8 for n in range(12)])
        assert (found[~there] == found[0]).all()


def test_the_blob_grows_and_its_middle_stays():
    scene = analytic(frames=11, cameras=3, size=(192, 144))
    near = outline(scene, 1, shapes.BLOB, 0.4)
    least = scene.frame(10)[1].astype(int)  # it is smallest there, and largest at 10/3
    areas = []
    for number in (0, 3):
        hidden = near & (np.abs(scene.frame(number)[1] - least).max(-1) > 1)
        rows, columns = np.nonzero(hidden)
        areas.append(len(rows))
        middle = np.array([columns.mean(), rows.mean()]) + 0.5
        assert np.abs(middle - scene.cameras[1].project(np.array([shapes.BLOB]))[0]).max() < 1.5
    radii = [shapes.BLOB_RADIUS, shapes.BLOB_RADIUS + shapes.BLOB_CHANGE]
    assert areas[1] / areas[0] == pytest.approx((radii[1] / radii[0]) ** 2, rel=0.1)


def test_the_lamp_changes_its_colour_and_nothing_else(scene, seen):
    lamp = pixels(seen, scene, 1, [shapes.LAMP[0]])[:, 0]
    assert (np.abs(np.diff(lamp, axis=0)).max(1) > 20).all()
    lit = [(frame[1] == own).all(-1).sum() for frame, own in zip(seen, lamp, strict=True)]
    assert lit[0] > 20
    assert len(set(lit)) == 1

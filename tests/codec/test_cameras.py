import json

import numpy as np
import pytest

from codec.cameras import Camera, pack_camera, parse_camera
from codec.errors import InputError


def one(**changes):
    return Camera.looking(
        **{"eye": (1, -1, -3), "at": (0, 0, 1), "width": 64, "height": 48, "field": 50, **changes}
    )


def test_json_keeps_every_bit():
    camera = one()
    read = parse_camera(pack_camera(camera))
    assert (read.width, read.height) == (64, 48)
    np.testing.assert_array_equal(read.K, camera.K)
    np.testing.assert_array_equal(read.world_to_camera, camera.world_to_camera)


def test_what_is_looked_at_is_in_the_middle_and_right_down_are_so():
    points = np.array([[0, 0, 1], [0.1, 0, 1], [0, 0.1, 1]], float)
    middle, right, down = one().project(points)
    np.testing.assert_allclose(middle, [32, 24])
    assert right[0] > 33
    assert down[1] > 25
    np.testing.assert_allclose(one().eye, [1, -1, -3])


def test_the_field_is_the_angle_across_the_width():
    camera = Camera.looking(eye=(0, 0, 0), at=(0, 0, 1), width=64, height=48, field=90)
    sides = camera.project(np.array([[1.0, 0, 1], [-1, 0, 1]]))[:, 0]
    np.testing.assert_allclose(sides, [64, 0], atol=1e-9)


@pytest.mark.parametrize("change", [
    {"width": 0}, {"width": 1 << 17}, {"width": 6.5}, {"width": True}, {"K": [[1, 0], [0, 1]]},
    {"K": [[0, 0, 1], [0, 1, 1], [0, 0, 1]]}, {"K": [[1, 0.5, 1], [0, 1, 1], [0, 0, 1]]},
    {"K": "text"}, {"K": [[10**400, 0, 1], [0, 1, 1], [0, 0, 1]]}, {"world_to_camera": None},
    {"world_to_camera": (2 * np.eye(4)).tolist()},
    {"world_to_camera": np.diag([1.0, 1, -1, 1]).tolist()}, {"more": 1},
])  # fmt: skip
def test_what_is_no_camera_is_an_input_error(change):
    fields = json.loads(pack_camera(one()))
    with pytest.raises(InputError, match=r"want|float"):
        parse_camera(json.dumps({**fields, **change}).encode())


@pytest.mark.parametrize("data", [b"", b"[", b"[" * 10**5, b"\xff\xfe", b"3"])
def test_what_is_no_json_is_an_input_error(data):
    with pytest.raises(InputError):
        parse_camera(data)


def test_looking_straight_down_is_refused():
    with pytest.raises(ValueError, match="straight"):
        one(eye=(0, 0, 1), at=(0, 5, 1))

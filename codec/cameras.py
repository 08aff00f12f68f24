"""A pinhole camera, and its JSON form. Knows no scene and no codec.

>>> camera = Camera.looking(eye=(0, 0, -2), at=(0, 0, 0), width=64, height=48, field=60)
>>> parse_camera(pack_camera(camera)).project(np.zeros((1, 3))).tolist()
[[32.0, 24.0]]
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from codec.errors import InputError

__all__ = ["Camera", "pack_camera", "parse_camera"]

Reals: TypeAlias = NDArray[np.float64]

SIDE_MAX = 1 << 16
FAR = 1e9  # that no entry of a matrix exceeds
SLACK = 1e-4  # of a rotation's rows, which files round


@final
@dataclass(frozen=True)
class Camera:
    """Pixels of a view: the centre of the first, at the top left, is at (0.5, 0.5).

    Axes of the camera are x to the right, y down, z forward.

    Attributes:
        width: pixels.
        height: pixels.
        K: `(3, 3)` float64: focal lengths and principal point in pixels, no skew.
        world_to_camera: `(4, 4)` float64, a rotation and a translation.

    Raises:
        ValueError: a size or matrix is not of that kind.
    """

    width: int
    height: int
    K: Reals
    world_to_camera: Reals

    def __post_init__(self) -> None:
        if not (0 < self.width <= SIDE_MAX and 0 < self.height <= SIDE_MAX):
            raise ValueError(f"camera: want sides up to {SIDE_MAX}, got {self.width}x{self.height}")
        for name, size in (("K", 3), ("world_to_camera", 4)):
            matrix = getattr(self, name)
            if matrix.shape != (size, size) or not (np.abs(matrix) <= FAR).all():
                raise ValueError(f"{name}: want {size}x{size} numbers of at most {FAR:g}")
        fx, fy, cx, cy = self.intrinsics
        plain = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        if not (fx > 0 and fy > 0) or (plain != self.K).any():
            raise ValueError("K: want [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], fx and fy above 0")
        turn = self.world_to_camera[:3, :3]
        rigid = np.abs(turn @ turn.T - np.eye(3)).max() < SLACK and np.linalg.det(turn) > 0
        if not rigid or (self.world_to_camera[3] != [0, 0, 0, 1]).any():
            raise ValueError("world_to_camera: want a rotation and a translation over [0, 0, 0, 1]")

    @property
    def intrinsics(self) -> tuple[float, float, float, float]:
        """Focal lengths fx and fy, principal point cx and cy, in pixels."""
        k = self.K
        return float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])

    @property
    def eye(self) -> Reals:
        """`(3,)` where the camera is, in the world."""
        place: Reals = -self.world_to_camera[:3, :3].T @ self.world_to_camera[:3, 3]
        return place

    def project(self, points: Reals) -> Reals:
        """`(N, 2)` pixels of `(N, 3)` points of the world that are in front of the camera."""
        seen = points @ self.world_to_camera[:3, :3].T + self.world_to_camera[:3, 3]
        pixels: Reals = (seen @ self.K.T)[:, :2] / seen[:, 2:]
        return pixels

    @classmethod
    def looking(
        cls, *, eye: tuple[float, ...], at: tuple[float, ...], width: int, height: int, field: float
    ) -> Camera:
        """From a place to a point, upright; `field` is the angle across the width, in degrees.

        Raises:
            ValueError: it would look straight up or down, or nowhere.
        """
        forward = np.subtract(at, eye).astype(np.float64)
        right = np.cross([0.0, 1.0, 0.0], forward)
        if not np.linalg.norm(right) > 0:
            raise ValueError("camera: want a direction that is not straight up or down")
        rows = [right, np.cross(forward, right), forward]
        turn = np.array([row / np.linalg.norm(row) for row in rows])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turn, -turn @ np.asarray(eye, np.float64)
        focal = width / 2 / math.tan(math.radians(field) / 2)
        K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        return cls(width, height, K, pose)


def parse_camera(data: bytes) -> Camera:
    """The camera that a JSON file states.

    Raises:
        InputError: it is no JSON, or has not width, height, K and world_to_camera.
    """
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"camera: no JSON: {error}") from error
    names = ("width", "height", "K", "world_to_camera")
    if not isinstance(found, dict) or set(found) != set(names):
        raise InputError(f"camera: want an object of {', '.join(names)}")
    if type(found["width"]) is not int or type(found["height"]) is not int:
        raise InputError("camera: want width and height as whole numbers")
    try:
        matrices = (np.array(found[name], np.float64) for name in names[2:])
        return Camera(found["width"], found["height"], *matrices)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(str(error)) from error


def pack_camera(camera: Camera) -> bytes:
    """A JSON file of the camera."""
    found = {
        "width": camera.width,
        "height": camera.height,
        "K": camera.K.tolist(),
        "world_to_camera": camera.world_to_camera.tolist(),
    }
    return json.dumps(found, indent=2).encode() + b"\n"

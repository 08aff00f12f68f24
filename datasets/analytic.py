"""A scene of known shapes that move, ray-traced from several cameras. Knows no Gaussian, no file.

Each thing is there for one way in which a scene changes: a floor of squares and two boxes never do;
a ball goes round and spins; a blob grows and shrinks; a guest comes and goes at once; a lamp stays
where it is and changes its colour. There are no shadows: what does not change is equal in all
frames, but for rounding. Axes are x to the right, y down, z forward; what is behind all is black.

>>> scene = analytic(frames=2, cameras=3, size=(32, 24))
>>> scene.frame(0).shape
(3, 24, 32, 3)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from codec.cameras import Camera

__all__ = ["Analytic", "analytic"]

Reals: TypeAlias = NDArray[np.float64]
Triple: TypeAlias = tuple[float, float, float]

# Cameras are on an arc around a point, every second one higher.
MIDDLE, RADIUS, HALF_ARC, HEIGHTS, FIELD = (0.0, 0.3, 4.5), 4.4, 0.4, (-0.4, -0.9), 60.0

# Centres and half of the sides, or the radius.
FLOOR: tuple[Triple, Triple] = ((0.0, 1.05, 5.0), (5.0, 0.05, 4.0))
BOXES: tuple[tuple[Triple, Triple], ...] = (
    ((-1.6, 0.4, 4.2), (0.5, 0.6, 0.4)),
    ((1.7, 0.55, 5.0), (0.45, 0.45, 0.55)),
)
BALL, PATH, BALL_RADIUS = (0.0, 0.2, 4.2), (0.55, 0.25, 0.5), 0.45
BLOB, BLOB_RADIUS, BLOB_CHANGE = (0.95, 0.65, 2.9), 0.24, 0.1
GUEST: tuple[Triple, Triple] = ((-0.85, 0.75, 2.9), (0.2, 0.25, 0.2))
LAMP: tuple[Triple, Triple] = ((0.3, -1.0, 6.5), (0.6, 0.25, 0.1))
PERIOD = 40  # frames, of the ball's way
SPIN = 0.08  # of the ball, from frame to frame, in radians

SQUARE = 0.5  # side of the floor's
LIGHT = np.array([-0.36, -0.8, -0.48])  # where it comes from
SHADE = 0.45  # what a side has that the light does not reach
WAVES = 6  # that a texture is the sum of
SAMPLES = 2  # of a pixel, each way


class _Thing(NamedTuple):
    """A box or a ball of one texture; `size` is half of the sides, or the radius three times."""

    is_ball: bool
    centre: Reals
    size: Reals
    turn: Reals  # rows are its axes in the world
    texture: int


@final
@dataclass(frozen=True)
class Analytic:
    """The scene; a frame is traced when it is asked for.

    Attributes:
        frames: how many there are.
        cameras: from left to right.
        held_out: the camera in the middle, which is left for tests.
        appears: the first frame that the guest is in.
        vanishes: the first frame after it that the guest is not in.
        waves: `(textures, WAVES, 3)` directions in which a texture changes.
        phases: `(textures, WAVES)`.
        colours: `(textures, WAVES + 1, 3)`: the mean, and how far each wave goes.
    """

    frames: int
    cameras: tuple[Camera, ...]
    held_out: int
    appears: int
    vanishes: int
    waves: Reals
    phases: Reals
    colours: Reals

    def frame(self, number: int) -> NDArray[np.uint8]:
        """`(V, H, W, 3)` RGB, what the cameras see.

        Raises:
            IndexError: there is no such frame.
        """
        if not 0 <= number < self.frames:
            raise IndexError(f"frame {number} of {self.frames}")
        things = self._things(number)
        return np.stack([self._seen(camera, things, number) for camera in self.cameras])

    def _things(self, number: int) -> list[_Thing]:
        """What is there, in the order of the textures."""
        upright = np.eye(3)
        phase = 2 * np.pi * number / PERIOD
        way = np.array(PATH) * np.array([np.sin(phase), np.sin(2 * phase), np.cos(phase)])
        radius = BLOB_RADIUS + BLOB_CHANGE * np.sin(3 * phase)
        things = [
            _Thing(False, np.array(centre), np.array(half), upright, texture)
            for texture, (centre, half) in enumerate((LAMP, FLOOR, *BOXES))
        ]
        spin = _turn_around(np.array([0.36, 0.8, 0.48]), SPIN * number)
        things.append(_Thing(True, np.array(BALL) + way, np.full(3, BALL_RADIUS), spin, 4))
        things.append(_Thing(True, np.array(BLOB), np.full(3, radius), upright, 5))
        if self.appears <= number < self.vanishes:
            things.append(_Thing(False, np.array(GUEST[0]), np.array(GUEST[1]), upright, 6))
        return things

    def _seen(self, camera: Camera, things: list[_Thing], number: int) -> NDArray[np.uint8]:
        """`(H, W, 3)`, what one camera sees."""
        fx, fy, cx, cy = camera.intrinsics
        x = (np.arange(SAMPLES * camera.width) + 0.5) / SAMPLES
        y = (np.arange(SAMPLES * camera.height) + 0.5) / SAMPLES
        across, down = np.meshgrid((x - cx) / fx, (y - cy) / fy)
        straight = np.stack([across, down, np.ones_like(across)]).reshape(3, -1)
        rays = camera.world_to_camera[:3, :3].T @ straight
        depths = np.stack([_depths(thing, camera.eye, rays) for thing in things])
        nearest, depth = depths.argmin(0), depths.min(0)
        colours = np.zeros((rays.shape[1], 3))
        for own, thing in enumerate(things):
            hit = np.flatnonzero((nearest == own) & np.isfinite(depth))
            points = (camera.eye - thing.centre + (depth[hit] * rays[:, hit]).T) @ thing.turn.T
            colours[hit] = self._colours(thing, points, number)
        samples = colours.reshape(camera.height, SAMPLES, camera.width, SAMPLES, 3)
        seen: NDArray[np.uint8] = np.rint(255 * samples.mean((1, 3))).astype(np.uint8)
        return seen

    def _colours(self, thing: _Thing, points: Reals, number: int) -> Reals:
        """`(P, 3)` in [0, 1] of points on a thing, in its own axes."""
        if thing.texture == 0:
            turns = 2 * np.pi * (0.31 * number + np.arange(3) / 3)
            return np.broadcast_to(0.6 + 0.4 * np.sin(turns), points.shape)
        # A ball's texture grows with it.
        places = points * (BALL_RADIUS / thing.size) if thing.is_ball else points
        waves = np.sin(places @ self.waves[thing.texture].T + self.phases[thing.texture])
        if thing.texture == 1:
            odd = np.floor(points[:, 0] / SQUARE) + np.floor(points[:, 2] / SQUARE)
            waves[:, 0] = np.where(odd % 2, 1, -1)
        mean, *changes = self.colours[thing.texture]
        light = SHADE + (1 - SHADE) * np.maximum(_normals(thing, points) @ thing.turn @ LIGHT, 0)
        colours: Reals = np.clip((mean + waves @ changes) * light[:, None], 0, 1)
        return colours


def analytic(
    *, frames: int = 30, cameras: int = 9, size: tuple[int, int] = (128, 96), seed: int = 0
) -> Analytic:
    """The scene, the same for the same arguments.

    Args:
        frames: at least 1; the guest is there in the second third of them.
        cameras: at least 2.
        size: width and height of a picture, in pixels.
        seed: of the textures.

    Raises:
        ValueError: an argument is out of its range.
    """
    if frames < 1 or cameras < 2:
        raise ValueError(f"want a frame and two cameras at least, got {frames} and {cameras}")
    views = []
    for number, angle in enumerate(np.linspace(-HALF_ARC, HALF_ARC, cameras)):
        eye = MIDDLE[0] + RADIUS * np.sin(angle), MIDDLE[2] - RADIUS * np.cos(angle)
        place = eye[0], HEIGHTS[number % 2], eye[1]
        views.append(
            Camera.looking(eye=place, at=MIDDLE, width=size[0], height=size[1], field=FIELD)
        )
    rng = np.random.default_rng(seed)
    textures = 7
    waves = rng.normal(size=(textures, WAVES, 3))
    waves *= rng.uniform(4, 16, (textures, WAVES, 1)) / np.linalg.norm(waves, axis=2)[..., None]
    changes = rng.normal(size=(textures, WAVES, 3)) * 0.08
    changes[1] = 0
    changes[1, 0] = 0.25  # of the floor, grey squares
    means = rng.uniform(0.35, 0.85, (textures, 1, 3))
    return Analytic(
        frames=frames,
        cameras=tuple(views),
        held_out=cameras // 2,
        appears=frames // 3,
        vanishes=2 * frames // 3,
        waves=waves,
        phases=rng.uniform(0, 2 * np.pi, (textures, WAVES)),
        colours=np.concatenate([means, changes], 1),
    )


def _depths(thing: _Thing, eye: Reals, rays: Reals) -> Reals:
    """`(P,)` how far along each of `(3, P)` rays the thing begins; infinite where it is missed."""
    start = eye - thing.centre
    if thing.is_ball:
        squares, along = np.square(rays).sum(0), start @ rays
        inside = along**2 - squares * (start @ start - thing.size[0] ** 2)
        depths = (-along - np.sqrt(np.maximum(inside, 0))) / squares
        return np.where((inside > 0) & (depths > 0), depths, np.inf)
    with np.errstate(divide="ignore"):  # a ray along a side meets it nowhere
        slopes = 1 / (thing.turn @ rays)
    middles = -(thing.turn @ start)[:, None] * slopes
    halves = thing.size[:, None] * np.abs(slopes)
    enters, leaves = (middles - halves).max(0), (middles + halves).min(0)
    return np.where((enters < leaves) & (enters > 0), enters, np.inf)


def _normals(thing: _Thing, points: Reals) -> Reals:
    """`(P, 3)` of points on a thing, in its own axes."""
    normals: Reals = points / thing.size
    if not thing.is_ball:
        side = np.abs(normals).argmax(1)[:, None] == np.arange(3)
        normals = np.where(side, np.sign(normals), 0)
    return normals


def _turn_around(axis: Reals, angle: float) -> Reals:
    """`(3, 3)` rows: the axes of what was upright, turned around a unit vector."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: Reals = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    return turn.T

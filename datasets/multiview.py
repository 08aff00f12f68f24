"""Videos of one scene from several cameras, as N3DV has them on disk. Knows no model and no codec.

A folder holds `cam00.mp4`, `cam01.mp4`, ..., of which some may be missing, and `poses_bounds.npy`:
`(N, 17)` float64, a row for each file in the order of their names. A row is a `(3, 5)` matrix
`[R | t | (height, width, focal length)]`, row by row, whose R has the camera's axes down, right and
back in its columns, and then the depths between which the scene lies.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias, final

import av
import numpy as np
from numpy.typing import NDArray

from codec.cameras import Camera
from codec.errors import CodecError, InputError, UsageError
from codec.io.video import Clip, read_video

__all__ = ["MultiView", "is_multiview", "read_multiview", "write_multiview"]

Reals: TypeAlias = NDArray[np.float64]
Views: TypeAlias = NDArray[np.uint8]

POSES = "poses_bounds.npy"
NAME = re.compile(r"cam[0-9]+\.mp4")
ROW = 17
CAMERAS_MAX = 100  # that two digits number: the order of the names is that of the cameras
MAX_PIXELS = 1 << 25  # of a picture: 8K
RATE = Fraction(30)
BOUNDS = 0.2, 100.0  # depths that are written, which a list of cameras does not say


@final
@dataclass(frozen=True)
class MultiView:
    """Videos of one scene that begin together, and their cameras; iterating gives the pictures.

    Each iteration reads the files anew and holds one picture of each; it gives `frames` arrays
    `(V, H, W, 3)` of uint8 RGB, in order of time. It raises `InputError` where a file is damaged.

    Attributes:
        cameras: of the V videos, all of one size.
        frames: of the shortest video.
        held_out: which camera is left for tests: the first.
        paths: the V files.
        downscale: a pixel is the mean of so many of the file's, each way.
    """

    cameras: tuple[Camera, ...]
    frames: int
    held_out: int
    paths: tuple[Path, ...]
    downscale: int = 1

    def __iter__(self) -> Iterator[Views]:
        """The pictures of all cameras, frame after frame."""
        clips = [_opened(path) for path in self.paths]
        for number in range(self.frames):
            views = []
            for path, clip in zip(self.paths, clips, strict=True):
                with _named(path):
                    picture = next(clip.frames, None)
                    if picture is None:
                        raise InputError(f"want {self.frames} frames, got {number}")
                views.append(_smaller(picture, self.downscale))
            yield np.stack(views)


def is_multiview(source: str | Path) -> bool:
    """Whether a name is that of such a folder: it has poses."""
    return (Path(source) / POSES).is_file()


def read_multiview(folder: str | Path, *, downscale: int = 1) -> MultiView:
    """The cameras of a folder, and its videos to iterate over.

    Args:
        folder: as the module says.
        downscale: at least 1, a divisor of the videos' width and height; N3DV is measured at 2.

    Raises:
        InputError: there are no poses, or other than one row for each video; a row states no
            camera; a file is no video; or videos have different sizes.
        LimitError: a picture has more than 2^25 pixels.
        UsageError: `downscale` does not divide the sizes.
    """
    folder = Path(folder)
    try:
        paths = sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}") from error
    if not paths:
        raise InputError("no cam00.mp4, cam01.mp4, ... in the folder")
    rows = _rows(folder / POSES)
    if len(rows) != len(paths):
        raise InputError(f"{POSES}: want {len(paths)} rows, one for each video, got {len(rows)}")
    cameras: list[Camera] = []
    counts = []
    for path, row in zip(paths, rows, strict=True):
        clip = _opened(path)
        look = clip.look
        if cameras and (look.width, look.height) != (cameras[0].width, cameras[0].height):
            first = f"{cameras[0].width}x{cameras[0].height}"
            raise InputError(f"{path.name}: want {first} pixels, got {look.width}x{look.height}")
        with _named(path):
            cameras.append(_camera(row, look.width, look.height))
        counts.append(clip.count)
    return MultiView(
        cameras=tuple(_camera_of_smaller(camera, downscale) for camera in cameras),
        frames=min(counts),
        held_out=0,
        paths=tuple(paths),
        downscale=downscale,
    )


def write_multiview(folder: str | Path, cameras: Sequence[Camera], frames: Iterable[Views]) -> None:
    """Write a folder that `read_multiview` reads; the videos are H.264 without loss, 30 a second.

    The poses are written last, so that a folder that is not whole has none.

    Args:
        folder: is made where it is missing, and must be empty.
        cameras: at most 100, of one size, with one focal length and the principal point in the
            middle, for a row of poses says no more.
        frames: `(V, H, W, 3)` of uint8 RGB, the pictures of the V cameras, in order of time.

    Raises:
        UsageError: the folder has files in it or cannot be written to; the layout cannot state a
            camera; frames have other sizes than the cameras; or there are none.
    """
    folder = Path(folder)
    rows = np.array([_row(camera) for camera in cameras])
    sizes = {(camera.height, camera.width) for camera in cameras}
    if not 0 < len(cameras) <= CAMERAS_MAX or len(sizes) != 1:
        raise UsageError(f"want 1 to {CAMERAS_MAX} cameras of one size, got {len(cameras)}")
    shape = (len(cameras), *sizes.pop(), 3)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError("the folder has files in it")
        with ExitStack() as stack:
            writers = [
                stack.enter_context(_lossless(folder / f"cam{number:02}.mp4", camera))
                for number, camera in enumerate(cameras)
            ]
            count = 0
            for views in frames:
                if views.shape != shape or views.dtype != np.uint8:
                    raise UsageError(f"want {shape} uint8, got {views.shape} of {views.dtype}")
                for write, picture in zip(writers, views, strict=True):
                    write(picture)
                count += 1
        if not count:
            raise UsageError("want at least one frame")
        np.save(folder / POSES, rows)
    except (OSError, av.FFmpegError) as error:
        raise UsageError(f"cannot be written: {error.strerror or error}") from error


# ---- poses


def _rows(path: Path) -> Reals:
    """`(N, 17)`; the file is mapped, for its head may claim more than memory holds."""
    try:
        rows = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise InputError(f"{POSES}: cannot be read: {error.strerror or error}") from error
    except (ValueError, OverflowError, TypeError) as error:
        raise InputError(f"{POSES}: no array: {error}") from error
    if rows.ndim != 2 or rows.shape[1] != ROW or rows.dtype != np.float64:
        raise InputError(f"{POSES}: want (N, {ROW}) float64, got {rows.shape} of {rows.dtype}")
    return np.array(rows)


def _camera(row: Reals, width: int, height: int) -> Camera:
    """The camera of a row; the video may be smaller than the pictures that the row is of."""
    matrix = row[:15].reshape(3, 5)
    down, right, back, eye, (_, full_width, full_focal) = matrix.T
    if not (full_width > 0 and full_focal > 0):
        raise InputError(f"want a width and a focal length, got {full_width} and {full_focal}")
    pose = np.eye(4)
    pose[:3, :3] = right, down, -back
    with np.errstate(over="ignore", invalid="ignore"):  # the camera refuses what is not finite
        focal = full_focal * width / full_width
        pose[:3, 3] = -pose[:3, :3] @ eye
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    try:
        return Camera(width, height, K, pose)
    except ValueError as error:
        raise InputError(f"{POSES}: {error}") from error


def _row(camera: Camera) -> Reals:
    """`(17,)`, of which `_camera` makes the camera."""
    fx, fy, cx, cy = camera.intrinsics
    if fx != fy or (cx, cy) != (camera.width / 2, camera.height / 2):
        raise UsageError("want one focal length and the principal point in the middle")
    right, down, forward = camera.world_to_camera[:3, :3]
    columns = [down, right, -forward, camera.eye, [camera.height, camera.width, fx]]
    return np.concatenate([np.stack(columns, 1).reshape(-1), BOUNDS])


def _camera_of_smaller(camera: Camera, downscale: int) -> Camera:
    if downscale < 1 or camera.width % downscale or camera.height % downscale:
        size = f"{camera.width}x{camera.height}"
        raise UsageError(f"downscale: want a divisor of {size} pixels, got {downscale}")
    K = camera.K / [[downscale], [downscale], [1]]
    width, height = camera.width // downscale, camera.height // downscale
    return Camera(width, height, K, camera.world_to_camera)


# ---- pictures


def _opened(path: Path) -> Clip:
    with _named(path):
        return read_video(path, max_pixels=MAX_PIXELS)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of one of many files say which it is."""
    try:
        yield
    except CodecError as error:
        raise type(error)(f"{path.name}: {error}") from error


def _smaller(picture: Views, downscale: int) -> Views:
    """The means of squares of pixels."""
    if downscale == 1:
        return picture
    height, width, _ = picture.shape
    squares = picture.reshape(height // downscale, downscale, width // downscale, downscale, 3)
    means: Views = np.rint(squares.mean((1, 3))).astype(np.uint8)
    return means


@contextmanager
def _lossless(path: Path, camera: Camera) -> Iterator[Callable[[Views], None]]:
    """What writes picture after picture `(H, W, 3)`."""
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264rgb", rate=RATE, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = camera.width, camera.height, "rgb24"
        numbers = itertools.count()

        def write(picture: Views) -> None:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = next(numbers), 1 / RATE
            container.mux(stream.encode(frame))

        yield write
        container.mux(stream.encode(None))

"""Videos as streams of frames: files of any kind in, Matroska, MP4, Y4M or PNG out. Knows no model.

A frame is `(H, W, 3)` uint8 RGB. No more than one is held here, however long the video is; sound is
held whole, as the packets that the file had.
"""

from __future__ import annotations

import io
import itertools
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, final

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray
from PIL import Image

from codec.errors import InputError, LimitError, UsageError
from codec.io.files import STANDARD

__all__ = ["Clip", "Frame", "Look", "check_target", "read_video", "video_writer"]

logger = logging.getLogger(__name__)

Frame: TypeAlias = NDArray[np.uint8]

# Numbers of ISO/IEC 23091-2; what is not here is computed as BT.601, as FFmpeg does.
IDENTITY, BT709, UNKNOWN = 0, 1, 2
SPACES = {BT709: Colorspace.ITU709, 4: Colorspace.FCC, 7: Colorspace.SMPTE240M}
RANGES = {False: ColorRange.MPEG, True: ColorRange.JPEG}
RATE, RATE_MAX = Fraction(25), 1000  # of a file that says none, and that is believed

# Of each extension: container, encoder, its options.
FORMATS: dict[str, tuple[str, str, dict[str, str]]] = {
    ".mkv": ("matroska", "ffv1", {"level": "3"}),
    ".mp4": ("mp4", "libx264", {"crf": "12"}),
    ".mov": ("mov", "libx264", {"crf": "12"}),
}
Y4M = ".y4m"


@final
@dataclass(frozen=True)
class Look:
    """What a video is besides its frames.

    Attributes:
        width: pixels.
        height: pixels.
        rate: frames in a second.
        matrix: of Y'CbCr in the file, as in ISO/IEC 23091-2; 0 of RGB, 2 if it is unknown.
        full_range: whether levels go from 0 to 255.
    """

    width: int
    height: int
    rate: Fraction
    matrix: int = IDENTITY
    full_range: bool = True


@final
@dataclass(frozen=True)
class Clip:
    """A video that is read frame by frame, once.

    Attributes:
        look: of all frames.
        frames: one after the other.
        count: how many there are, as far as that can be known before they are decoded.
        audio: the sound as Matroska, or nothing.
    """

    look: Look
    frames: Iterator[Frame]
    count: int
    audio: bytes = b""

    @classmethod
    def from_array(cls, frames: NDArray[Any], rate: Fraction = RATE) -> Clip:
        """The frames of an array `(T, H, W, 3)` of uint8.

        Raises:
            UsageError: it is no such array.
        """
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not frames.size:
            raise UsageError(
                f"video: want (T, H, W, 3) uint8, got {frames.shape} of {frames.dtype}"
            )
        look = Look(frames.shape[2], frames.shape[1], rate)
        return cls(look, iter(frames), len(frames))


# ---- in


def read_video(source: str | Path, *, max_pixels: int) -> Clip:
    """The first video stream of a file, `-` for standard input; frames are read as they are asked.

    Raises:
        InputError: it is no video that FFmpeg reads; also from `frames`, where it is damaged.
        LimitError: a frame has more than `max_pixels`.
    """
    data = sys.stdin.buffer.read() if str(source) == STANDARD else None
    with _translated():
        container: Any = av.open(str(source) if data is None else io.BytesIO(data))
        if not container.streams.video:
            raise InputError("no video stream")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        decoded = container.decode(stream)
        first = next(decoded, None)
        if first is None:
            raise InputError("a video without frames")
        whole = av.open(str(source) if data is None else io.BytesIO(data))
        count, sound = _passed_over(whole)
    if first.width * first.height > max_pixels:
        raise LimitError(f"{first.width}x{first.height} pixels are more than {max_pixels}")
    pixels = _upright(first)
    is_rgb = first.format.is_rgb
    rate = Fraction(stream.average_rate or stream.guessed_rate or 0).limit_denominator(1 << 20)
    look = Look(
        width=pixels.shape[1],
        height=pixels.shape[0],
        rate=rate if 0 < rate <= RATE_MAX else RATE,
        matrix=IDENTITY if is_rgb else int(first.colorspace),
        full_range=is_rgb or first.color_range == ColorRange.JPEG,
    )
    frames = _frames(container, itertools.chain([first], decoded), look)
    return Clip(look, frames, max(1, count), sound)


def _frames(container: Any, decoded: Iterator[Any], look: Look) -> Iterator[Frame]:
    with container, _translated():
        for frame in decoded:
            pixels = _upright(frame)
            if pixels.shape != (look.height, look.width, 3):
                raise InputError(
                    f"frames of {look.width}x{look.height} and "
                    f"{pixels.shape[1]}x{pixels.shape[0]} pixels in one video"
                )
            yield pixels


def _upright(frame: Any) -> Frame:
    """RGB, turned as the file says."""
    space = SPACES.get(int(frame.colorspace), Colorspace.ITU601)
    pixels = frame.reformat(format="rgb24", src_colorspace=space).to_ndarray()
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def _passed_over(container: Any) -> tuple[int, bytes]:
    """How many packets of pictures there are, and those of the sound in a container of their own.

    In one pass over the packets, of which none is decoded.
    """
    with container:
        pictures, sound = container.streams.video[0], None
        kept = io.BytesIO()
        # Or the file would have a number of chance, and a video another stream each time.
        with av.open(kept, "w", format="matroska", options={"fflags": "+bitexact"}) as own:
            streams = [pictures]
            if container.streams.audio:
                try:
                    sound = own.add_stream_from_template(container.streams.audio[0])
                    streams.append(container.streams.audio[0])
                except (av.FFmpegError, ValueError) as error:
                    logger.warning("the sound is left out: %s", error)
            count = 0
            for packet in container.demux(streams):
                if packet.dts is None and not packet.size:  # the end of a stream
                    continue
                if packet.stream is pictures:
                    count += 1
                elif packet.dts is not None:
                    packet.stream = sound
                    own.mux(packet)
        return count, kept.getvalue() if sound else b""


def _copy(source: Any, stream: Any, target: Any, copy: Any) -> None:
    for packet in source.demux(stream):
        if packet.dts is not None:
            packet.stream = copy
            target.mux(packet)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        raise InputError(f"no video that can be read: {error.strerror}") from error


# ---- out


def check_target(target: str, *, force: bool) -> None:
    """Refuse a place for a video before any work is done for it.

    Raises:
        UsageError: nothing can be written under this name, or what is there would be replaced.
    """
    if target == STANDARD:
        return
    path = Path(target)
    if _is_folder(target):
        if path.exists() and not path.is_dir():
            raise UsageError("the output is no folder")
        if path.is_dir() and any(path.iterdir()) and not force:
            raise UsageError("the folder has files in it; --force replaces it")
        return
    if path.suffix.lower() not in (*FORMATS, Y4M):
        raise UsageError(
            f"the extension {path.suffix or '(none)'} names no video that can be written; use "
            f"{', '.join(FORMATS)} or {Y4M}, or end the name with / for a folder of PNG"
        )
    if path.is_dir():
        raise UsageError("the output is a folder; end its name with / for PNG files")


@contextmanager
def video_writer(target: str, look: Look, audio: bytes = b"") -> Iterator[Callable[[Frame], None]]:
    """What writes frame after frame to a place; it is whole there at the end, or as it was.

    Args:
        target: a name ending in .mkv (FFV1), .mp4 or .mov (H.264), .y4m, or / (a folder of PNG), or
            `-`: Y4M to standard output.
        look: of the frames.
        audio: of `Clip`; Y4M and PNG have none.

    Raises:
        UsageError: the place cannot be written to.
    """
    path = Path(os.path.realpath(target))
    own = _own_writer(target)
    if audio and own is not _container:
        logger.warning("the sound is left out: this output has none")
    try:
        if target == STANDARD:
            yield _y4m_into(sys.stdout.buffer, look)
            sys.stdout.buffer.flush()
            return
        partial = path.with_name(f".{path.name}.partial{path.suffix}")
        try:
            with own(partial, look, audio) as write:
                yield write
            if path.is_dir():
                shutil.rmtree(path)
            partial.replace(path)
        finally:
            if partial.is_dir():
                shutil.rmtree(partial)
            partial.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except (OSError, av.FFmpegError) as error:
        reason = f"{target}: cannot be written: {error.strerror or error}"
        raise UsageError(reason) from error


def _own_writer(target: str) -> Callable[..., Any]:
    if target != STANDARD and _is_folder(target):
        return _folder
    if Path(target).suffix.lower() in FORMATS:
        return _container
    return _y4m


def _is_folder(target: str) -> bool:
    return target.endswith("/")


@contextmanager
def _container(path: Path, look: Look, audio: bytes) -> Iterator[Callable[[Frame], None]]:
    name, encoder, options = FORMATS[path.suffix.lower()]
    with av.open(str(path), "w", format=name) as container:
        stream: Any = container.add_stream(encoder, rate=look.rate, options=options)
        stream.width, stream.height = look.width, look.height
        as_rgb = look.matrix == IDENTITY and encoder == "ffv1"
        pixels = "bgr0" if as_rgb else _planes(look, fine=encoder == "ffv1")
        stream.pix_fmt = pixels
        if not as_rgb:
            stream.codec_context.colorspace = _matrix(look)
            stream.codec_context.color_range = RANGES[_is_full(look)]
        sound = av.open(io.BytesIO(audio)) if audio else None
        copy = sound and container.add_stream_from_template(sound.streams.audio[0])
        if sound:
            _copy(sound, sound.streams.audio[0], container, copy)
        numbers = itertools.count()

        def write(frame: Frame) -> None:
            converted = _converted(frame, look, pixels)
            converted.pts, converted.time_base = next(numbers), 1 / look.rate
            container.mux(stream.encode(converted))

        yield write
        container.mux(stream.encode(None))


@contextmanager
def _y4m(path: Path, look: Look, audio: bytes) -> Iterator[Callable[[Frame], None]]:
    with path.open("wb") as file:
        yield _y4m_into(file, look)


def _y4m_into(file: BinaryIO, look: Look) -> Callable[[Frame], None]:
    full = _is_full(look)
    look = replace(look, matrix=UNKNOWN, full_range=full)  # it has no word for one: BT.601
    pixels = _planes(look, fine=False)
    layout = {"yuv420p": "420jpeg", "yuv444p": "444"}[pixels]
    extent = "FULL" if full else "LIMITED"
    rate = f"{look.rate.numerator}:{look.rate.denominator}"
    head = f"YUV4MPEG2 W{look.width} H{look.height} F{rate} Ip A1:1 C{layout} XCOLORRANGE={extent}"
    file.write(f"{head}\n".encode())

    def write(frame: Frame) -> None:
        file.write(b"FRAME\n" + _converted(frame, look, pixels).to_ndarray().tobytes())

    return write


@contextmanager
def _folder(path: Path, look: Look, audio: bytes) -> Iterator[Callable[[Frame], None]]:
    path.mkdir()
    numbers = itertools.count()

    def write(frame: Frame) -> None:
        Image.fromarray(frame).save(path / f"{next(numbers):06}.png")

    yield write


def _planes(look: Look, *, fine: bool) -> str:
    """Y'CbCr at full size where it is asked for, and where sides are odd."""
    odd = look.width % 2 or look.height % 2
    return "yuv444p" if fine or odd else "yuv420p"


def _matrix(look: Look) -> int:
    return BT709 if look.matrix == IDENTITY else look.matrix


def _is_full(look: Look) -> bool:
    return look.full_range and look.matrix != IDENTITY  # what was RGB becomes what players expect


def _converted(frame: Frame, look: Look, pixels: str) -> Any:
    picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
    if pixels == "bgr0":
        return picture.reformat(format=pixels)
    return picture.reformat(
        format=pixels,
        dst_colorspace=SPACES.get(_matrix(look), Colorspace.ITU601),
        dst_color_range=RANGES[_is_full(look)],
    )

"""The package's functions: pictures, videos, scenes to bytes and back. Knows no command line.

Everything heavy is imported where it is used, so that `info` needs neither torch nor numpy.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

from codec.bitstream import (
    VERSION,
    Box,
    ChunkType,
    Container,
    Header,
    Kind,
    Limits,
    peek,
    scan,
    unpack,
    unpack_streams,
)
from codec.errors import BitstreamError, LimitError, UsageError
from codec.io.files import read_bytes
from codec.progress import Progress, Stopwatch, unseen
from codec.registry import family_by_name
from codec.weights import SHIPPED, Zoo

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from PIL import Image

    from codec.engine import Decoded, Encoded, Model, Rate, SymbolDigest
    from codec.gaussians import Gaussians
    from codec.io.picture import Picture
    from codec.io.video import Clip, Look
    from codec.journal import Journal
    from codec.models.base import Search
    from codec.moving import EncodedScene, SceneModel
    from codec.video import EncodedVideo, VideoRate

__all__ = [
    "MAX_PIXELS",
    "ChunkInfo",
    "DecodeOptions",
    "EncodeOptions",
    "Info",
    "InfoOfAll",
    "LayerInfo",
    "OpenScene",
    "OpenVideo",
    "bits_each",
    "decode",
    "decode_batch",
    "decode_scene",
    "decode_stream",
    "decode_video",
    "encode",
    "encode_clip",
    "encode_moments",
    "encode_picture",
    "encode_scene",
    "encode_source",
    "info",
    "load_model",
    "medium_of",
    "open_scene",
    "open_video",
]

MAX_PIXELS = Limits().max_pixels
"""Pixels of an image that is believed unless told otherwise."""


class ChunkInfo(TypedDict):
    """A chunk as `info` reports it: its type's name, where it starts, bytes of its payload."""

    type: str
    offset: int
    length: int
    crc_ok: bool


class LayerInfo(TypedDict):
    """A layer as `info` reports it: its number, 0 for the core, and its bytes."""

    layer: int
    bytes: int


class InfoOfAll(TypedDict):
    """What `info` reports of every stream; a scene's layers are not listed."""

    format_version: int
    family: str
    model_id: str
    kind: str
    frames: int
    chunks: list[ChunkInfo]
    layers: list[LayerInfo]


class Info(InfoOfAll, total=False):
    """What `info` reports: size and bits per pixel of an image or video, or Gaussians of a scene.

    `gaussians` are those of the frame that has most, and each frame counts as one of as many.
    """

    width: int
    height: int
    bpp: float
    gaussians: int
    bits_per_gaussian: float


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """How to encode; `encode` says what each means. At most one target."""

    quality: int = 60
    model: str = "iscs"
    target_bpp: float | None = None
    target_size: int | None = None
    target_psnr: float | None = None
    effort: int = 0
    time_limit: float | None = None
    key_every: int | None = None
    take_interrupt: bool = False
    dictionary: str | Path | None = None
    lanes: int | None = None
    device: str = "auto"
    zoo: Zoo = SHIPPED

    def __post_init__(self) -> None:
        targets = (self.target_bpp, self.target_size, self.target_psnr)
        if sum(target is not None for target in targets) > 1:
            raise UsageError("target: want one of bpp, size and psnr")
        if any(target is not None and not target > 0 for target in targets):
            raise UsageError("target: want a number above 0")
        if self.quality not in range(101):
            raise UsageError(f"quality: want 0 to 100, got {self.quality}")
        if self.effort not in range(10):
            raise UsageError(f"effort: want 0 to 9, got {self.effort}")
        if self.time_limit is not None and not self.time_limit > 0:
            raise UsageError(f"time limit: want seconds above 0, got {self.time_limit}")
        if self.key_every is not None and not 1 <= self.key_every <= 1 << 16:
            raise UsageError(f"key every: want 1 to {1 << 16} frames, got {self.key_every}")

    def search(self) -> Search:
        """How hard to look, and for how long."""
        from codec.models.base import Search

        return Search(
            effort=self.effort,
            seconds=math.inf if self.time_limit is None else self.time_limit,
            interrupted=Event() if self.take_interrupt else None,
        )

    def video_rate(self) -> VideoRate:
        """What a video may cost; a UsageError if the target is a PSNR."""
        from codec.video import VideoRate

        if self.target_psnr is not None:
            raise UsageError("target: of a video want bits per pixel or bytes, not dB")
        return VideoRate(self.quality, self.target_bpp, self.target_size)

    def rate(self, pixels: int) -> Rate:
        """What an image of so many pixels may cost."""
        from codec.engine import Rate

        if self.target_bpp is not None:
            return Rate(bytes_max=self.target_bpp * pixels / 8)
        if self.target_size is not None:
            return Rate(bytes_max=self.target_size)
        return Rate(quality=self.quality, psnr_min=self.target_psnr)


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """How to decode; `decode` says what each means."""

    device: str = "auto"
    half: bool = False
    layers: int | None = None
    region: tuple[int, int, int, int] | None = None
    frames: tuple[int, int] | None = None
    allow_partial: bool = False
    dictionary: str | Path | None = None
    max_pixels: int = MAX_PIXELS
    zoo: Zoo = SHIPPED

    def interval(self, count: int) -> range:
        """Those of the `count` frames there are that are asked for."""
        first, end = (0, count) if self.frames is None else self.frames
        if not 0 <= first < end <= count:
            raise UsageError(f"frames: want A:B with 0 <= A < B <= {count}, got {first}:{end}")
        return range(first, end)

    def window(self, header: Header) -> Box:
        """The part of the image that is asked for."""
        if self.region is None:
            return Box(0, 0, header.width, header.height)
        box = Box(*self.region)
        right, bottom = box.left + box.width, box.top + box.height
        inside = (
            box.left >= 0 and box.top >= 0 and right <= header.width and bottom <= header.height
        )
        if not inside or box.width < 1 or box.height < 1:
            raise UsageError(
                f"region: want X,Y,W,H inside {header.width}x{header.height}, "
                f"got {','.join(map(str, self.region))}"
            )
        return box


def encode(
    image: Image.Image | NDArray[Any] | torch.Tensor | str | Path,
    *,
    quality: int = 60,
    model: str = "iscs",
    target_bpp: float | None = None,
    target_size: int | None = None,
    target_psnr: float | None = None,
    effort: int = 0,
    time_limit: float | None = None,
    dictionary: str | Path | None = None,
    lanes: int | None = None,
    device: str = "auto",
    max_pixels: int = MAX_PIXELS,
    zoo: Zoo = SHIPPED,
) -> bytes:
    """Compress an image or a video.

    Args:
        image: for a model of images, a Pillow image or the path of an image file, both turned
            upright as their EXIF says; a `(H, W)` or `(H, W, C)` array of uint8 or uint16 with 1 to
            4 channels (L, LA, RGB, RGBA); or a `(C, H, W)` float tensor in [0, 1], which is rounded
            to 8 bits. For a model of videos, the path of a video file, or a `(T, H, W, 3)` array of
            uint8, which then has 25 frames a second.
        quality: 0 to 100; higher is larger and better. A target takes its place.
        model: `family` or `family/variant`; `codec models` lists them.
        target_bpp: the best file of at most so many bits per pixel, all bytes counted but those of
            a video's sound.
        target_size: the best file of at most so many bytes.
        target_psnr: the smallest file of at least so many dB, over the colour at its bit depth;
            images only.
        effort: 0 to 9, how long the encoder searches for a smaller file of the same quality. `iscs`
            takes a round for each, as long as decoding twice; `inr` from 20 seconds to hours;
            `nerv` sees each frame 20 to 1500 times.
        time_limit: seconds that the search may take; it then gives what it has.
        dictionary: a file of `codec dictionary build`, for `clc` in place of its own. Whoever
            decodes the stream needs it.
        lanes: of the entropy coder, a power of two up to 1024; images only. A GPU decodes them side
            by side, and each costs up to five bytes of each sub-stream. None for as many as cost
            less than 0.1 %.
        device: `auto` (a GPU if there is one), `cpu` or `cuda`.
        max_pixels: larger images are refused.
        zoo: where weights come from.

    Returns:
        A whole stream. Mode, size, alpha, palette, ICC profile, EXIF, XMP and text are in it.

    Raises:
        UsageError: an option is out of range, or no quality reaches the target.
        InputError: the image cannot be read.
        ModelError: the weights are missing or altered, or the dictionary is not for them.
        LimitError: the image is too large.
    """
    options = EncodeOptions(
        quality=quality,
        model=model,
        target_bpp=target_bpp,
        target_size=target_size,
        target_psnr=target_psnr,
        effort=effort,
        time_limit=time_limit,
        dictionary=dictionary,
        lanes=lanes,
        device=device,
        zoo=zoo,
    )
    medium = medium_of(model, zoo)
    if medium == "scene":
        raise UsageError(f"model: {model} codes scenes, for encode_scene")
    if medium == "video":
        return encode_clip(_clip(image, max_pixels), options, watch=Stopwatch()).stream
    return encode_picture(_picture(image, max_pixels), options, watch=Stopwatch()).stream


@overload
def decode(
    data: bytes | str | Path,
    *,
    as_tensor: Literal[False] = False,
    device: str = "auto",
    layers: int | None = None,
    region: tuple[int, int, int, int] | None = None,
    allow_partial: bool = False,
    dictionary: str | Path | None = None,
    max_pixels: int = MAX_PIXELS,
    zoo: Zoo = SHIPPED,
) -> Image.Image | NDArray[Any]: ...
@overload
def decode(
    data: bytes | str | Path,
    *,
    as_tensor: Literal[True],
    device: str = "auto",
    layers: int | None = None,
    region: tuple[int, int, int, int] | None = None,
    allow_partial: bool = False,
    dictionary: str | Path | None = None,
    max_pixels: int = MAX_PIXELS,
    zoo: Zoo = SHIPPED,
) -> torch.Tensor: ...
def decode(
    data: bytes | str | Path,
    *,
    as_tensor: bool = False,
    device: str = "auto",
    layers: int | None = None,
    region: tuple[int, int, int, int] | None = None,
    allow_partial: bool = False,
    dictionary: str | Path | None = None,
    max_pixels: int = MAX_PIXELS,
    zoo: Zoo = SHIPPED,
) -> Image.Image | NDArray[Any] | torch.Tensor:
    """Decompress a stream of an image.

    Args:
        data: the stream, or the path of a file that holds it.
        as_tensor: give a `(C, H, W)` float32 tensor in [0, 1] on the device.
        device: `auto` (a GPU if there is one), `cpu` or `cuda`.
        layers: of a progressive stream, how many to use beside the core: 0 is the coarsest picture.
        region: `(x, y, width, height)` in pixels: only this part, at the cost of its tiles.
        allow_partial: take a stream that is cut, up to its last whole layer; tiles of which nothing
            is there come out flat.
        dictionary: the file that the stream was made with, if it was made with one.
        max_pixels: streams that claim more are refused.
        zoo: where weights come from.

    Returns:
        A Pillow image of the mode that was encoded, or for 16 bits a uint16 array `(H, W)` or
        `(H, W, C)`, or a tensor of the same channels.

    Raises:
        BitstreamError: the stream is damaged, truncated or not ours.
        ModelError: the weights or the dictionary that made it are missing or altered.
        LimitError: it claims too many pixels.
        UsageError: an option is out of range, or it is of a video or scene, for `decode_video` or
            `decode_scene`.
    """
    stream = data if isinstance(data, bytes) else read_bytes(data)
    options = DecodeOptions(
        device=device,
        layers=layers,
        region=region,
        allow_partial=allow_partial,
        dictionary=dictionary,
        max_pixels=max_pixels,
        zoo=zoo,
    )
    if as_tensor:
        return _decode_tensors([stream], options)[0]
    picture = decode_stream(stream, options, watch=Stopwatch()).picture
    return picture.to_image() if picture.bit_depth == 8 else picture.to_array()


def decode_batch(
    streams: Sequence[bytes | str | Path],
    *,
    device: str = "auto",
    half: bool = False,
    max_pixels: int = MAX_PIXELS,
    zoo: Zoo = SHIPPED,
) -> torch.Tensor:
    """Decompress images of one size, mode, model and quality, together.

    Args:
        streams: at least one, or the paths of files that hold them.
        device: `auto` (a GPU if there is one), `cpu` or `cuda`.
        half: turn latents into pixels in half precision, which moves a pixel by at most one level
            of 255; for a GPU, since a CPU takes longer.
        max_pixels: batches that claim more in all are refused.
        zoo: where weights come from.

    Returns:
        `(N, C, H, W)` float32 in [0, 1] on the device: one by one, what `decode` gives as a tensor.

    Raises:
        BitstreamError: one of the streams is damaged, truncated or not ours.
        ModelError: the weights or the dictionary that made one are missing or altered.
        LimitError: they claim too many pixels.
        UsageError: their headers differ, there is none, or it is of a video or scene.
    """
    read = [data if isinstance(data, bytes) else read_bytes(data) for data in streams]
    options = DecodeOptions(device=device, half=half, max_pixels=max_pixels, zoo=zoo)
    return _decode_tensors(read, options)


def decode_video(
    data: bytes | str | Path,
    *,
    frames: tuple[int, int] | None = None,
    device: str = "auto",
    allow_partial: bool = False,
    max_pixels: int = MAX_PIXELS,
    zoo: Zoo = SHIPPED,
) -> Iterator[NDArray[Any]]:
    """Decompress a stream of a video, frame by frame.

    Args:
        data: the stream, or the path of a file that holds it.
        frames: `(first, end)`: only these, at the cost of the groups that they are in.
        device: `auto` (a GPU if there is one), `cpu` or `cuda`.
        allow_partial: take a stream that is cut, up to its last whole group.
        max_pixels: streams that claim more in a frame are refused.
        zoo: where weights come from.

    Returns:
        An iterator of `(H, W, 3)` uint8 RGB frames, each decoded when it is asked for.

    Raises:
        BitstreamError: the stream is damaged, truncated or not ours; from the iterator where that
            is in a group.
        ModelError: the weights that made it are missing or altered.
        LimitError: it claims too many pixels or frames.
        UsageError: there are no such frames, or it is no video.
    """
    stream = data if isinstance(data, bytes) else read_bytes(data)
    options = DecodeOptions(
        frames=frames, device=device, allow_partial=allow_partial, max_pixels=max_pixels, zoo=zoo
    )
    return open_video(stream, options, watch=Stopwatch()).frames


def encode_scene(
    frames: Collection[Gaussians] | str | Path,
    *,
    quality: int = 60,
    model: str = "gauss",
    key_every: int | None = None,
    rate: Fraction | int = 30,
    effort: int = 0,
    time_limit: float | None = None,
    zoo: Zoo = SHIPPED,
) -> bytes:
    """Compress a scene of Gaussians that move, or fit one to videos and compress that.

    Args:
        frames: of the scene, all of one degree, which are gone through twice and may be read when
            they are asked for; or a file, a folder or a pattern as `frames/%04d.ply` of PLY, SPZ or
            .splat files, as `codec.io.splats` reads them; or a folder of videos and cameras, as
            `codec.datasets.multiview` reads them, of which the first is not looked at.
        quality: 0 to 100; higher is larger and better.
        model: `family` or `family/variant`; `codec models` lists them.
        key_every: frames from a key frame to the next at most, 1 to 2**16; None for 30. A frame is
            decoded from the key frame before it on.
        rate: frames in a second, for players; of videos it is 30.
        effort: 0 to 9, how long to fit Gaussians to videos.
        time_limit: seconds that the fit may take.
        zoo: where weights come from.

    Returns:
        A whole stream.

    Raises:
        UsageError: an option is out of range, there are no frames, or they do not go together.
        InputError: a file cannot be read.
        ModelError: the weights are missing or altered.
        LimitError: a frame has more than 2**22 Gaussians.
    """
    options = EncodeOptions(
        quality=quality,
        model=model,
        key_every=key_every,
        effort=effort,
        time_limit=time_limit,
        zoo=zoo,
    )
    if isinstance(frames, str | Path):
        return encode_source(frames, options, rate=Fraction(rate), watch=Stopwatch()).stream
    if not isinstance(frames, Collection):  # an iterator would be used up by the first pass
        raise UsageError(f"frames: want a path or a collection, got {type(frames).__name__}")
    return encode_moments(frames, options, rate=Fraction(rate), watch=Stopwatch()).stream


def decode_scene(
    data: bytes | str | Path,
    *,
    frames: tuple[int, int] | None = None,
    layers: int | None = None,
    allow_partial: bool = False,
    zoo: Zoo = SHIPPED,
) -> Iterator[Gaussians]:
    """Decompress a stream of a scene, frame by frame.

    Args:
        data: the stream, or the path of a file that holds it.
        frames: `(first, end)`: only these, at the cost of those from the key frame before on.
        layers: of what only adds detail, how many to use: 0 is the coarsest scene.
        allow_partial: take a stream that is cut, up to its last whole frame, and let parts of it
            that are damaged stay as they were until the next key frame.
        zoo: where weights come from.

    Returns:
        An iterator of `codec.gaussians.Gaussians`, each decoded when it is asked for.

    Raises:
        BitstreamError: the stream is damaged, truncated or not ours; from the iterator where that
            is in a frame.
        ModelError: the weights that made it are missing or altered.
        LimitError: it claims too many frames or Gaussians.
        UsageError: there are no such frames or layers, or it is no scene.
    """
    stream = data if isinstance(data, bytes) else read_bytes(data)
    options = DecodeOptions(frames=frames, layers=layers, allow_partial=allow_partial, zoo=zoo)
    return open_scene(stream, options, watch=Stopwatch()).frames


def info(data: bytes | str | Path, *, zoo: Zoo = SHIPPED) -> Info:
    """What a stream says of itself, and which of its chunks are damaged; decodes nothing.

    Args:
        data: the stream, or the path of a file that holds it.
        zoo: where its weights are listed, which say what its layers are.

    Raises:
        BitstreamError: it is not ours, or its header is damaged.
        ModelError: the list of weights cannot be read.
    """
    stream = data if isinstance(data, bytes) else read_bytes(data)
    found = scan(stream)
    header = found.header
    if header is None:
        raise found.error or BitstreamError("the header is damaged")
    names = {family.id: family.name for family in zoo.families}
    about: Info = {
        "format_version": VERSION,
        "family": names.get(header.family, f"unknown {header.family}"),
        "model_id": header.model_id.hex(),
        "kind": header.kind.name.lower(),
        "frames": 1,
        "chunks": [
            {"type": c.name, "offset": c.offset, "length": c.length, "crc_ok": c.crc_ok}
            for c in found.chunks
        ],
        "layers": [],
    }
    container = unpack(stream) if found.error is None else None
    if container is not None and header.kind == Kind.IMAGE:
        about["layers"] = _layers(container, zoo)
    if header.kind == Kind.VIDEO:  # of a damaged one they are not known
        about["frames"] = container.video.frames if container else 0
    if header.kind == Kind.SCENE:
        about["frames"] = container.scene.frames if container else 0
        about["gaussians"] = container.scene.gaussians if container else 0
        about["bits_per_gaussian"] = bits_each(stream, about["frames"], about["gaussians"])
    else:
        about["width"], about["height"] = header.width, header.height
        pixels = header.width * header.height
        about["bpp"] = bits_each(stream, about["frames"], pixels)
    return about


def bits_each(stream: bytes, frames: int, things: int) -> float:
    """Bits for each of so many pixels or Gaussians in each of so many frames."""
    return 8 * len(stream) / (max(1, frames) * max(1, things))


def _layers(container: Container, zoo: Zoo) -> list[LayerInfo]:
    """The layers of an image; none if its weights are not known or have no layers."""
    model_id = container.header.model_id
    entry = next((e for e in zoo.manifest() if e.model_id == model_id), None)
    if entry is None or not entry.layers:
        return []
    sizes = [0] * (1 + entry.layers)
    core = len(entry.streams) - entry.layers
    for payload in container.tiles:
        streams = unpack_streams(payload, entry.streams)
        for number, name in enumerate(entry.streams):
            sizes[max(0, number - core + 1)] += len(streams[name])
    return [{"layer": layer, "bytes": size} for layer, size in enumerate(sizes)]


def load_model(
    model: str = "iscs",
    *,
    dictionary: str | Path | None = None,
    device: str = "auto",
    zoo: Zoo = SHIPPED,
) -> Model:
    """Weights ready to code many images: `.compress(x, quality=60)` and `.decompress(stream)`."""
    from codec.engine import find_model

    return _given(find_model(model, zoo, device), dictionary)


def _given(model: Model, dictionary: str | Path | None) -> Model:
    """`model` with the dictionary of a file, if there is one."""
    if dictionary is None:
        return model
    from codec.dictionaries import read_dictionary

    return model.given(read_dictionary(dictionary))


def encode_picture(
    picture: Picture, options: EncodeOptions, *, watch: Stopwatch, progress: Progress = unseen
) -> Encoded:
    """`encode` for a picture that is read, with all that is to be known about the result."""
    if options.key_every is not None:
        raise UsageError("key every: is for scenes")
    with watch.part("load"):
        from codec import engine

        model = engine.find_model(options.model, options.zoo, options.device)
        model = _given(model, options.dictionary)
    rate = options.rate(picture.width * picture.height)
    return engine.encode_picture(
        picture,
        model,
        rate,
        search=options.search(),
        lanes=options.lanes,
        watch=watch,
        progress=progress,
    )


def medium_of(model: str, zoo: Zoo = SHIPPED) -> str:
    """What the model called `family` or `family/variant` codes: `image`, `video` or `scene`."""
    return family_by_name(model.partition("/")[0], zoo.families).kind


def encode_clip(
    clip: Clip,
    options: EncodeOptions,
    *,
    watch: Stopwatch,
    progress: Progress = unseen,
    journal: Journal | None = None,
) -> EncodedVideo:
    """`encode` for a video that is being read, with all that is to be known about the result."""
    if options.dictionary is not None:
        raise UsageError("dictionary: videos take none")
    if options.lanes is not None:
        raise UsageError("lanes: are for images")
    if options.key_every is not None:
        raise UsageError("key every: is for scenes")
    with watch.part("load"):
        from codec import video

        model = video.find_video_model(options.model, options.zoo, options.device)
    return video.encode_video(
        clip,
        model,
        options.video_rate(),
        search=options.search(),
        watch=watch,
        progress=progress,
        journal=journal,
    )


@dataclass(frozen=True)
class OpenVideo:
    """A stream whose frames are decoded as they are asked for.

    Attributes:
        look: size, rate and colour.
        audio: the sound as Matroska; nothing if not all frames were asked for.
        interval: the frames' numbers.
        frames: `(H, W, 3)` uint8 each.
        digest: of symbols, SHA-256, which is whole after the last frame.
    """

    look: Look
    audio: bytes
    interval: range
    frames: Iterator[NDArray[Any]]
    digest: SymbolDigest


def open_video(
    stream: bytes, options: DecodeOptions, *, watch: Stopwatch, progress: Progress = unseen
) -> OpenVideo:
    """`decode_video` with all that is to be known about the result."""
    if (options.layers, options.region, options.dictionary) != (None, None, None):
        raise UsageError("layers, region and dictionary are for images; this is a video")
    limits = Limits(max_pixels=options.max_pixels)
    container = _unpack(stream, Kind.VIDEO, limits, options)
    with watch.part("load"):
        from codec import video
        from codec.engine import SymbolDigest

        model = video.video_model_of(container.header, options.zoo, options.device)
    count = video.whole_frames(container)
    if not count:
        raise BitstreamError("the stream is cut before its first group is whole")
    interval = options.interval(count)
    digest = SymbolDigest()
    frames = video.decode_frames(
        container, model, interval, watch=watch, progress=progress, digest=digest
    )
    audio = container.find(ChunkType.AUDIO) if len(interval) == container.video.frames else None
    return OpenVideo(video.look_of(container), audio or b"", interval, frames, digest)


def encode_moments(
    frames: Collection[Gaussians],
    options: EncodeOptions,
    *,
    rate: Fraction = Fraction(30),
    watch: Stopwatch,
    progress: Progress = unseen,
) -> EncodedScene:
    """`encode_scene` for frames that are there, with all that is to be known about the result."""
    if not all(1 <= part < 1 << 31 for part in rate.as_integer_ratio()):
        raise UsageError(f"rate: want frames in a second, got {rate}")
    model, key_every = _for_scene(options, watch)
    from codec import moving

    return moving.encode_scene(
        frames,
        model,
        options.quality,
        key_every=key_every,
        rate=rate,
        watch=watch,
        progress=progress,
    )


def encode_source(
    source: str | Path,
    options: EncodeOptions,
    *,
    rate: Fraction = Fraction(30),
    watch: Stopwatch,
    progress: Progress = unseen,
) -> EncodedScene:
    """`encode_moments` for files of Gaussians; a folder of videos and cameras is fitted."""
    from codec.datasets.multiview import is_multiview, read_multiview

    if not is_multiview(source):
        with watch.part("load"):
            from codec.io.splats import SplatFiles

            frames = SplatFiles(source)
        return encode_moments(frames, options, rate=rate, watch=watch, progress=progress)
    model, key_every = _for_scene(options, watch)
    with watch.part("load"):
        from codec import moving

        views = read_multiview(source)
    return moving.fit_scene(
        views,
        model,
        options.quality,
        key_every=key_every,
        search=options.search(),
        watch=watch,
        progress=progress,
    )


def _for_scene(options: EncodeOptions, watch: Stopwatch) -> tuple[SceneModel, int]:
    """The model, and frames from a key frame to the next."""
    if (options.target_bpp, options.target_size, options.target_psnr) != (None, None, None):
        raise UsageError("target: scenes take a quality")
    if options.dictionary is not None:
        raise UsageError("dictionary: scenes take none")
    if options.lanes is not None:
        raise UsageError("lanes: are for images")
    with watch.part("load"):
        from codec import moving

        model = moving.find_scene_model(options.model, options.zoo)
    return model, moving.KEY_EVERY if options.key_every is None else options.key_every


@dataclass(frozen=True)
class OpenScene:
    """A stream whose frames are decoded as they are asked for.

    Attributes:
        gaussians: of the frame that has most.
        interval: the frames' numbers.
        frames: themselves.
        digest: of symbols, SHA-256, which is whole after the last frame.
    """

    gaussians: int
    interval: range
    frames: Iterator[Gaussians]
    digest: SymbolDigest


def open_scene(
    stream: bytes, options: DecodeOptions, *, watch: Stopwatch, progress: Progress = unseen
) -> OpenScene:
    """`decode_scene` with all that is to be known about the result."""
    if (options.region, options.dictionary) != (None, None):
        raise UsageError("region and dictionary are for images; this is a scene")
    container = _unpack(stream, Kind.SCENE, Limits(), options)
    with watch.part("load"):
        from codec import moving
        from codec.engine import SymbolDigest

        model = moving.scene_model_of(container.header, options.zoo)
    count = moving.whole_frames(container)
    if not count:
        raise BitstreamError("the stream is cut before its first frame is whole")
    interval = options.interval(count)
    digest = SymbolDigest()
    frames = moving.decode_frames(
        container,
        model,
        interval,
        layers=options.layers,
        hold=options.allow_partial,
        watch=watch,
        progress=progress,
        digest=digest,
    )
    return OpenScene(container.scene.gaussians, interval, frames, digest)


_CALLS = {
    Kind.IMAGE: ("an image", "decode"),
    Kind.VIDEO: ("a video", "decode_video"),
    Kind.SCENE: ("a scene", "decode_scene"),
}


def _unpack(stream: bytes, kind: Kind, limits: Limits, options: DecodeOptions) -> Container:
    """The container of a stream of this kind."""
    found = peek(stream).kind
    if found != kind:
        medium, call = _CALLS[found]
        raise UsageError(f"the stream is {medium}: for {call}")
    return unpack(stream, limits, partial=options.allow_partial)


def decode_stream(
    stream: bytes, options: DecodeOptions, *, watch: Stopwatch, progress: Progress = unseen
) -> Decoded:
    """`decode` with all that is to be known about the result."""
    limits = Limits(max_pixels=options.max_pixels)
    container = _unpack(stream, Kind.IMAGE, limits, options)
    if options.frames is not None:
        raise UsageError("frames are for videos and scenes; this is an image")
    window = options.window(container.header)
    with watch.part("load"):
        from codec import engine

        model = engine.model_of(container.header, options.zoo, options.device, half=options.half)
        model = _given(model, options.dictionary)
    return engine.decode_picture(
        container, model, window, layers=options.layers, watch=watch, progress=progress
    )


def _decode_tensors(streams: Sequence[bytes], options: DecodeOptions) -> torch.Tensor:
    """`decode_batch` with all options of one image."""
    if not streams:
        raise UsageError("batch: want one stream at least, got none")
    limits = Limits(max_pixels=options.max_pixels // len(streams))
    containers = [_unpack(stream, Kind.IMAGE, limits, options) for stream in streams]
    header = containers[0].header
    from codec import engine

    model = _given(
        engine.model_of(header, options.zoo, options.device, half=options.half), options.dictionary
    )
    return engine.decode_tensors(
        containers, model, options.window(header), layers=options.layers, watch=Stopwatch()
    )


def _clip(video: object, max_pixels: int) -> Clip:
    """The video in whatever `encode` takes."""
    import numpy as np

    from codec.io.video import Clip, read_video

    if isinstance(video, str | Path):
        return read_video(video, max_pixels=max_pixels)
    if isinstance(video, np.ndarray):
        clip = Clip.from_array(video)
        if clip.look.width * clip.look.height > max_pixels:
            raise LimitError(f"{clip.look.width}x{clip.look.height} pixels are over {max_pixels}")
        return clip
    raise UsageError(f"video: want a path or an array, got {type(video).__name__}")


def _picture(image: object, max_pixels: int) -> Picture:
    """The picture in whatever `encode` takes."""
    from PIL import Image

    from codec.io.picture import Picture
    from codec.io.reading import read_image, read_picture

    if isinstance(image, str | Path):
        return read_picture(read_bytes(image), max_pixels=max_pixels)
    if isinstance(image, Image.Image):
        picture = read_image(image, max_pixels=max_pixels)
    elif hasattr(image, "detach"):
        picture = Picture.from_array(_levels(image))
    elif hasattr(image, "__array__"):
        picture = Picture.from_array(image)
    else:
        raise UsageError(
            f"image: want a Pillow image, an array, a tensor or a path, got {type(image).__name__}"
        )
    if picture.width * picture.height > max_pixels:
        raise LimitError(f"{picture.width}x{picture.height} pixels are more than {max_pixels}")
    return picture


def _levels(tensor: Any) -> NDArray[Any]:
    """A `(C, H, W)` float tensor in [0, 1] as `(H, W, C)` levels of 8 bits."""
    if tensor.dim() != 3 or not tensor.is_floating_point():
        raise UsageError(
            f"image tensor: want (C, H, W) floats, got {tuple(tensor.shape)} of {tensor.dtype}"
        )
    levels = (tensor.detach().float().clamp(0, 1) * 255).round().byte()
    array: NDArray[Any] = levels.permute(1, 2, 0).cpu().numpy()
    return array

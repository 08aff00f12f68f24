"""Videos to streams and back, with a loaded model. Knows no path and no option of a command line.

frames --scenes--> groups --analyse, traverse--> GROUP chunks --pack--> stream
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import final

import numpy as np
import torch

from codec.bitstream import (
    Chunk,
    ChunkType,
    Container,
    Header,
    Kind,
    Video,
    pack,
    pack_streams,
    pack_video,
    unpack_streams,
)
from codec.engine import SymbolDigest, device_of, to_levels
from codec.entropy import Decoder, Encoder, prepare
from codec.errors import BitstreamError, ModelError
from codec.io.video import Clip, Frame, Look
from codec.journal import Journal
from codec.models.base import SHORT, AbstractVideoFamily, GroupGeometry, Search
from codec.progress import Progress, Stopwatch, unseen, within
from codec.registry import family_by_id, family_by_name
from codec.scenes import groups_of
from codec.weights import Entry, Zoo

__all__ = [
    "EncodedVideo",
    "VideoModel",
    "VideoRate",
    "bpp_of",
    "decode_frames",
    "encode_video",
    "find_video_model",
    "look_of",
    "quality_of",
    "video_model_of",
    "whole_frames",
]

BPP = (0.01, 1.0)  # of qualities 0 and 100
PIXELS_OF_A_GROUP = 1 << 26
FILE_BYTES, GROUP_BYTES = 64, 20  # what the container takes at most of a file, and of a group


def bpp_of(quality: int) -> float:
    """Bits per pixel of all frames at a quality of 0 to 100."""
    return BPP[0] * math.pow(BPP[1] / BPP[0], quality / 100)


def quality_of(bpp: float) -> int:
    """The quality, 0 to 100, that comes nearest to so many bits per pixel."""
    found = 100 * math.log(bpp / BPP[0]) / math.log(BPP[1] / BPP[0])
    return min(100, max(0, round(found)))


@final
@dataclass(frozen=True)
class VideoRate:
    """What a stream may cost, without sound: a quality, or instead of it one target.

    A quality also gives each group what the smallest useful network takes; a target is kept.

    Attributes:
        quality: 0 to 100.
        bpp: bits per pixel of all frames.
        bytes_max: of all frames.
    """

    quality: int = 60
    bpp: float | None = None
    bytes_max: float | None = None

    def bpp_for(self, pixels: int) -> float:
        """Bits per pixel of a video with so many pixels in all frames."""
        if self.bpp is not None:
            return self.bpp
        if self.bytes_max is None:
            return bpp_of(self.quality)
        return 8 * self.bytes_max / pixels

    def bits_of(self, bits: float, least: float) -> float:
        """What a group with this share gets, whose smallest useful network takes `least`."""
        return max(bits, least) if self.bpp is None and self.bytes_max is None else bits


@final
@dataclass(frozen=True)
class VideoModel:
    """Weights on a device, ready to code videos."""

    entry: Entry
    family: AbstractVideoFamily
    family_id: int
    device: torch.device


@final
@dataclass(frozen=True)
class EncodedVideo:
    """A stream, the quality in its header, how many frames it has, the weights that made it."""

    stream: bytes
    quality: int
    frames: int
    entry: Entry


def find_video_model(name: str, zoo: Zoo, device: str) -> VideoModel:
    """The model of videos called `family` or `family/variant`, on `device`."""
    return _load(zoo, zoo.find(name).sha256, device_of(device))


def video_model_of(header: Header, zoo: Zoo, device: str) -> VideoModel:
    """The model that made a stream."""
    family = family_by_id(header.family, zoo.families)
    return _load(zoo, zoo.find_by_id(family, header.model_id).sha256, device_of(device))


@lru_cache(maxsize=4)
def _load(zoo: Zoo, sha256: str, device: torch.device) -> VideoModel:
    entry = next(entry for entry in zoo.manifest() if entry.sha256 == sha256)
    family = zoo.load(entry)
    if not isinstance(family, AbstractVideoFamily):
        raise ModelError(f"{entry.name} codes no videos")
    prepare()
    family_id = family_by_name(entry.family, zoo.families).id
    return VideoModel(entry, family.to(device), family_id, device)


# ---- encoding


def encode_video(
    clip: Clip,
    model: VideoModel,
    rate: VideoRate,
    *,
    search: Search = SHORT,
    watch: Stopwatch,
    progress: Progress = unseen,
    journal: Journal | None = None,
) -> EncodedVideo:
    """The stream of a video; its frames are read group by group.

    Args:
        clip: to code.
        model: that codes it.
        rate: what its frames may cost.
        search: how hard to look for better frames; its seconds are for all of them.
        watch: is told what takes how long.
        progress: is told how far it has come.
        journal: has groups that were coded before, and gets those that are coded now, the one
            that is not finished too.

    Raises:
        UsageError: the target is too small.
    """
    look = clip.look
    pixels = look.width * look.height
    bpp = rate.bpp_for(pixels * clip.count)
    if journal:
        journal.begin([model.entry.sha256, bpp, search.effort, look.width, look.height])
    longest = max(1, min(model.family.frames_max, PIXELS_OF_A_GROUP // pixels))
    deadline = time.monotonic() + search.seconds
    spare, done, lengths, chunks = 8.0 * FILE_BYTES, 0, [], []
    for frames in _read(groups_of(clip.frames, longest), watch):
        expected = max(clip.count, done + len(frames))
        left = max(0.0, deadline - time.monotonic())
        own = replace(
            search,
            seconds=left * len(frames) / (expected - done),
            watch=within(progress, done / expected, len(frames) / expected),
            bookmark=journal.bookmark(frames) if journal else None,
        )
        geometry = GroupGeometry(look.height, look.width, len(frames))
        share = bpp * pixels * len(frames) - spare - 8 * GROUP_BYTES
        bits = rate.bits_of(share, model.family.bits_least(geometry))
        payload = journal.find(frames) if journal else None
        if payload is None:
            payload = _group(model, frames, geometry, bits, own, watch)
            if journal:
                journal.add(frames, payload)
        chunks.append(Chunk(ChunkType.GROUP, payload))
        spare = 0.0
        done += len(frames)
        lengths.append(len(frames))
        progress(done / expected)
    header = Header(
        family=model.family_id,
        model_id=model.entry.model_id,
        kind=Kind.VIDEO,
        width=look.width,
        height=look.height,
        quality=quality_of(bpp),
    )
    video = Video(
        rate=look.rate.as_integer_ratio(),
        matrix=look.matrix,
        full_range=look.full_range,
        groups=tuple(lengths),
    )
    chunks.append(Chunk(ChunkType.VIDEO, pack_video(video)))
    if clip.audio:
        chunks.append(Chunk(ChunkType.AUDIO, clip.audio))
    return EncodedVideo(pack(header, chunks), header.quality, done, model.entry)


def _read(groups: Iterator[list[Frame]], watch: Stopwatch) -> Iterator[list[Frame]]:
    while True:
        with watch.part("load"):
            frames = next(groups, None)
        if frames is None:
            return
        yield frames


def _group(
    model: VideoModel,
    frames: Sequence[Frame],
    geometry: GroupGeometry,
    bits: float,
    search: Search,
    watch: Stopwatch,
) -> bytes:
    with watch.part("transform"):
        x = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
        symbols = model.family.analyse_group(x.to(model.device), geometry, bits, search)
    with watch.part("entropy"):
        encoder = Encoder()
        model.family.traverse(encoder, symbols, geometry)
        return pack_streams(encoder.finish())


# ---- decoding


def look_of(container: Container) -> Look:
    """What a stream says of its video."""
    header, video = container.header, container.video
    rate = Fraction(*video.rate)
    return Look(header.width, header.height, rate, video.matrix, video.full_range)


def whole_frames(container: Container) -> int:
    """Frames of the groups that are whole: all of them, unless the stream is cut."""
    groups = len(container.groups) - container.cut
    return sum(container.video.groups[:groups])


def decode_frames(
    container: Container,
    model: VideoModel,
    frames: range,
    *,
    watch: Stopwatch,
    progress: Progress = unseen,
    digest: SymbolDigest | None = None,
) -> Iterator[Frame]:
    """Some frames of a video, in order; each group that has any is decoded once.

    Args:
        container: of a video.
        model: that made it.
        frames: one after the other, within `whole_frames`.
        watch: is told what takes how long.
        progress: is told how far it has come.
        digest: takes the symbols of the groups that are decoded.

    Raises:
        BitstreamError: a payload is damaged, or a group is longer than those of this family.
    """
    header, video, family = container.header, container.video, model.family
    at = frames.start
    while at < frames.stop:
        number, first = video.group_of(at)
        last = min(video.groups[number], first + frames.stop - at)
        geometry = GroupGeometry(header.height, header.width, video.groups[number])
        if geometry.frames > family.frames_max:
            raise BitstreamError(
                f"a group of {geometry.frames} frames; the most is {family.frames_max}"
            )
        with watch.part("entropy"):
            decoder = Decoder(unpack_streams(container.groups[number], family.streams))
            symbols = family.traverse(decoder, None, geometry)
            decoder.finish()
            if digest is not None:
                digest.add(symbols)
        drawn = family.synthesise_frames(symbols, geometry, range(first, last))
        for _ in range(first, last):
            with watch.part("transform"):
                frame = to_levels(next(drawn), 3, 255)
            yield frame
            at += 1
            progress((at - frames.start) / len(frames))

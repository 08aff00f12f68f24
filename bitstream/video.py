"""What only videos say of themselves: rate, colour, and how many frames each group has.

Knows no chunk and no model.

>>> video = Video(rate=(30000, 1001), matrix=1, full_range=False, groups=(64, 12))
>>> unpack_video(pack_video(video)) == video
True
>>> video.frames, video.group_of(64)
(76, (1, 0))
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import final

from codec.bitstream.rate import Rate, check_rate, unpack_rate
from codec.bitstream.wire import Reader, pack_varint
from codec.errors import BitstreamError

__all__ = ["Video", "pack_video", "unpack_video"]

MATRIX_MAX = 255
FRAMES_MAX = 1 << 16  # of a group


@final
@dataclass(frozen=True, kw_only=True)
class Video:
    """The VIDEO chunk; a value out of range is a BitstreamError.

    Args:
        rate: frames in a second as a fraction in lowest terms, both 1..2**31 - 1.
        matrix: of Y'CbCr where the video came from, as in ISO/IEC 23091-2, 0..255; 2 is unknown.
        full_range: whether its levels went from 0 to 255.
        groups: frames of each group of pictures, 1..2**16 each, at least one group.
    """

    rate: Rate
    matrix: int
    full_range: bool
    groups: tuple[int, ...]

    def __post_init__(self) -> None:
        check_rate(self.rate)
        if not 0 <= self.matrix <= MATRIX_MAX:
            raise BitstreamError(f"matrix {self.matrix}: want 0..{MATRIX_MAX}")
        if not self.groups or not all(1 <= frames <= FRAMES_MAX for frames in self.groups):
            raise BitstreamError(f"groups: want at least one, of 1..{FRAMES_MAX} frames each")

    @property
    def frames(self) -> int:
        """How many there are."""
        return self._begins[-1]

    @cached_property
    def _begins(self) -> tuple[int, ...]:
        """The number of each group's first frame, and of all frames."""
        return (0, *accumulate(self.groups))

    def group_of(self, frame: int) -> tuple[int, int]:
        """The group that a frame of 0..frames - 1 is in, and the frame's number there."""
        group = bisect_right(self._begins, frame) - 1
        return group, frame - self._begins[group]


def pack_video(video: Video) -> bytes:
    """The payload of the VIDEO chunk."""
    numbers = (*video.rate, video.matrix, int(video.full_range), *video.groups)
    return b"".join(map(pack_varint, numbers))


def unpack_video(payload: bytes) -> Video:
    """The inverse of `pack_video`; raises BitstreamError."""
    reader = Reader(payload)
    rate = unpack_rate(reader)
    matrix = reader.varint("matrix", MATRIX_MAX)
    full_range = bool(reader.varint("range", 1))
    groups = []
    while reader.left:
        groups.append(reader.varint("frames of a group", FRAMES_MAX))
    return Video(rate=rate, matrix=matrix, full_range=full_range, groups=tuple(groups))

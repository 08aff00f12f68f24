"""Moving Gaussians to streams and back, with a loaded model. Knows no path and no option.

frames --plan--> scene --key, follow, traverse--> UNIT chunks --pack--> stream

A slice that is lost stays as it was until the next key frame makes all of them anew.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar, final

from codec.bitstream import (
    Chunk,
    ChunkType,
    Container,
    Header,
    Kind,
    Limits,
    Scene,
    Unit,
    pack,
    pack_scene,
    pack_streams,
    pack_unit,
    unpack_streams,
    unpack_unit,
)
from codec.engine import SymbolDigest
from codec.entropy import Decoder, Encoder, prepare
from codec.errors import BitstreamError, LimitError, ModelError, UsageError
from codec.gaussians import Gaussians
from codec.models.base import SHORT, AbstractScene, AbstractSceneFamily, Search, SliceState
from codec.progress import Progress, Stopwatch, unseen
from codec.registry import family_by_id, family_by_name
from codec.weights import Entry, Zoo

if TYPE_CHECKING:
    from codec.datasets.multiview import MultiView

__all__ = [
    "KEY_EVERY",
    "EncodedScene",
    "SceneModel",
    "decode_frames",
    "encode_planned",
    "encode_scene",
    "find_scene_model",
    "fit_scene",
    "scene_model_of",
    "whole_frames",
]

logger = logging.getLogger(__name__)

KEY_EVERY = 30
"""Frames from a key frame to the next unless told otherwise: a second of 30 frames."""

MAX_GAUSSIANS = Limits().max_gaussians
CAMERAS_MIN = 2

T = TypeVar("T")


@final
@dataclass(frozen=True)
class SceneModel:
    """Weights ready to code moving Gaussians, on the CPU."""

    entry: Entry
    family: AbstractSceneFamily
    family_id: int

    @property
    def slices_max(self) -> int:
        """Of a frame, so that all of its Gaussians are within the limit."""
        return max(1, MAX_GAUSSIANS // self.family.slice_max)


@final
@dataclass(frozen=True)
class EncodedScene:
    """A stream, its frames, the Gaussians of the one that has most, the weights that made it."""

    stream: bytes
    frames: int
    gaussians: int
    entry: Entry


def find_scene_model(name: str, zoo: Zoo) -> SceneModel:
    """The model of scenes called `family` or `family/variant`."""
    return _load(zoo, zoo.find(name).sha256)


def scene_model_of(header: Header, zoo: Zoo) -> SceneModel:
    """The model that made a stream."""
    family = family_by_id(header.family, zoo.families)
    return _load(zoo, zoo.find_by_id(family, header.model_id).sha256)


@lru_cache(maxsize=4)
def _load(zoo: Zoo, sha256: str) -> SceneModel:
    entry = next(entry for entry in zoo.manifest() if entry.sha256 == sha256)
    family = zoo.load(entry)
    if not isinstance(family, AbstractSceneFamily):
        raise ModelError(f"{entry.name} codes no scenes")
    prepare()
    return SceneModel(entry, family, family_by_name(entry.family, zoo.families).id)


# ---- encoding


def encode_scene(
    frames: Collection[Gaussians],
    model: SceneModel,
    quality: int,
    *,
    key_every: int = KEY_EVERY,
    rate: Fraction = Fraction(30),
    watch: Stopwatch,
    progress: Progress = unseen,
) -> EncodedScene:
    """The stream of a scene; its frames are gone through twice, and one is held at a time.

    A frame that costs more than the last key frame is made a key frame if that costs less.

    Args:
        frames: all of one degree.
        model: that codes them.
        quality: 0 to 100.
        key_every: frames from a key frame to the next at most, 1 to 2**16.
        rate: frames in a second, of numbers up to 2**31 - 1.
        watch: is told what takes how long.
        progress: is told how far it has come.

    Raises:
        UsageError: there are no frames, or they do not go together.
        LimitError: a frame has too many Gaussians.
    """
    if not frames:
        raise UsageError("scene: want one frame at least, got none")
    with watch.part("transform"):
        plan = model.family.plan(_parts(frames, watch, "load"), quality)
    moments = _told(_parts(frames, watch, "load"), len(frames), progress)
    return encode_planned(
        moments, plan, model, quality, key_every=key_every, rate=rate, watch=watch
    )


def fit_scene(
    views: MultiView,
    model: SceneModel,
    quality: int,
    *,
    key_every: int = KEY_EVERY,
    search: Search = SHORT,
    watch: Stopwatch,
    progress: Progress = unseen,
) -> EncodedScene:
    """The stream of a scene that looks like videos, of which the one held out is not looked at.

    Pictures of two frames are held at a time.

    Args:
        views: videos and their cameras, at least `CAMERAS_MIN` besides the one held out.
        model: that fits and codes.
        quality: 0 to 100.
        key_every: as for `encode_scene`.
        search: how hard to fit, and for how long.
        watch: is told what takes how long.
        progress: is told how far it has come.

    Raises:
        UsageError: there are too few cameras, or they see too little in common.
        InputError: a file is damaged.
    """
    used = [number for number in range(len(views.cameras)) if number != views.held_out]
    if len(used) < CAMERAS_MIN:
        raise UsageError(f"cameras: want {CAMERAS_MIN} and one held out, got {len(views.cameras)}")
    pictures = (frame[used] for frame in _parts(views, watch, "load"))
    with watch.part("transform"):
        plan, moments = model.family.fit(
            [views.cameras[number] for number in used],
            pictures,
            views.frames,
            quality,
            replace(search, watch=progress),
        )
    fitted = _parts(moments, watch, "transform")
    return encode_planned(fitted, plan, model, quality, key_every=key_every, watch=watch)


def encode_planned(
    moments: Iterable[Gaussians],
    plan: bytes,
    model: SceneModel,
    quality: int,
    *,
    key_every: int = KEY_EVERY,
    rate: Fraction = Fraction(30),
    watch: Stopwatch,
) -> EncodedScene:
    """`encode_scene` of what a plan was made for, gone through once.

    Args:
        moments: of the degree that the plan states.
        plan: of the model's family.
        model: that codes them.
        quality: 0 to 100, which the plan was made for.
        key_every: as for `encode_scene`.
        rate: as for `encode_scene`.
        watch: is told what takes how long.
    """
    scene = model.family.scene(plan)
    after: Sequence[SliceState] = []
    most, key_bytes, chunks = 0, 0, []
    for number, gaussians in enumerate(moments):
        coded = None
        if number % key_every:
            coded = _code(model, scene, number, gaussians, after, watch)
        if coded is None or len(coded.unit) > key_bytes:
            key = _code(model, scene, number, gaussians, None, watch)
            assert key is not None
            if coded is None or len(key.unit) < len(coded.unit):
                coded, key_bytes = key, len(key.unit)
        after = coded.after
        chunks.append(Chunk(ChunkType.UNIT, coded.unit))
        most = max(most, len(scene.gaussians(coded.after)))
    header = Header(
        family=model.family_id,
        model_id=model.entry.model_id,
        kind=Kind.SCENE,
        width=0,
        height=0,
        quality=quality,
    )
    said = Scene(
        rate=rate.as_integer_ratio(),
        key_every=key_every,
        frames=len(chunks),
        gaussians=most,
        plan=plan,
    )
    chunks.append(Chunk(ChunkType.SCENE, pack_scene(said)))
    return EncodedScene(pack(header, chunks), len(chunks) - 1, most, model.entry)


def _parts(frames: Iterable[T], watch: Stopwatch, name: str) -> Iterator[T]:
    """The frames, whose making counts as that part."""
    source = iter(frames)
    while True:
        with watch.part(name):
            found = next(source, None)
        if found is None:
            return
        yield found


def _told(frames: Iterable[T], count: int, progress: Progress) -> Iterator[T]:
    """The frames; how many there were is told when the next is asked for."""
    for number, frame in enumerate(frames, 1):
        yield frame
        progress(number / count)


@final
@dataclass(frozen=True)
class _Coded:
    """The payload of a unit, and the slices as they are after it."""

    unit: bytes
    after: list[SliceState]


def _code(
    model: SceneModel,
    scene: AbstractScene,
    number: int,
    gaussians: Gaussians,
    before: Sequence[SliceState] | None,
    watch: Stopwatch,
) -> _Coded | None:
    """A frame that follows `before`, None if it cannot; a key frame if that is None."""
    with watch.part("transform"):
        slices = scene.key(gaussians) if before is None else scene.follow(gaussians, before)
    if slices is None:
        return None
    if len(slices) > model.slices_max:
        raise LimitError(
            f"frame {number}: {len(gaussians)} Gaussians; the limit is {MAX_GAUSSIANS}"
        )
    befores: Sequence[SliceState | None] = [None] * len(slices) if before is None else before
    payloads, after = [], []
    with watch.part("entropy"):
        for slice_before, symbols in zip(befores, slices, strict=True):
            encoder = Encoder()
            scene.traverse(encoder, symbols, slice_before)
            payloads.append(pack_streams(encoder.finish()))
            after.append(scene.after(symbols, slice_before))
    return _Coded(pack_unit(Unit(number, before is None, tuple(payloads))), after)


# ---- decoding


def whole_frames(container: Container) -> int:
    """Frames whose units are whole: all of them, unless the stream is cut."""
    return len(container.units) - container.cut


def decode_frames(
    container: Container,
    model: SceneModel,
    frames: range,
    *,
    layers: int | None = None,
    hold: bool = False,
    watch: Stopwatch,
    progress: Progress = unseen,
    digest: SymbolDigest,
) -> Iterator[Gaussians]:
    """Some frames of a scene, in order, from the key frame before the first of them on.

    Args:
        container: of a scene.
        model: that made it.
        frames: one after the other, within `whole_frames`.
        layers: how many of those that only add detail; None for all.
        hold: let slices of later frames that are damaged stay as they were, with a warning.
        watch: is told what takes how long.
        progress: is told how far it has come.
        digest: takes the symbols of the units that are decoded.

    Raises:
        UsageError: there are not so many layers.
        BitstreamError: a unit is damaged, or of another frame; with `hold`, only a key frame's.
    """
    said = container.scene
    player = _Player(container, model, layers=layers, hold=hold, digest=digest)
    for number in range(said.key_before(frames.start), frames.stop):
        with watch.part("entropy"):
            player.go_to(number)
        if number < frames.start:
            continue
        with watch.part("transform"):
            found = player.scene.gaussians(player.slices)
        if len(found) > said.gaussians:
            raise BitstreamError(
                f"frame {number}: {len(found)} Gaussians, and the most is said to be "
                f"{said.gaussians}"
            )
        yield found
        progress((number + 1 - frames.start) / len(frames))


@final
class _Player:
    """What a decoder has after a frame: `slices`, of which some may be lost."""

    def __init__(
        self,
        container: Container,
        model: SceneModel,
        *,
        layers: int | None,
        hold: bool,
        digest: SymbolDigest,
    ) -> None:
        self.scene = model.family.scene(container.scene.plan)
        self.slices: list[SliceState] = []
        self._lost: set[int] = set()
        self._container, self._slices_max = container, model.slices_max
        self._hold, self._layers, self._digest = hold, layers, digest
        most = self.scene.layers
        if layers is not None and not 0 <= layers <= most:
            raise UsageError(f"layers: want 0 to {most} of this stream, got {layers}")
        streams = self.scene.streams
        self._wanted = streams if layers is None else streams[: len(streams) - most + layers]

    def go_to(self, number: int) -> None:
        """Decode a frame: a key frame, or the one after that which was decoded last."""
        try:
            unit = self._unit(number)
        except BitstreamError:
            if self._must_be_key(number) or not self._hold:
                raise
            unit = Unit(number, is_key=False, slices=(None,) * len(self.slices))
        if unit.is_key:
            self._lost = set()
        before = len(self._lost)
        self.slices = [
            self._slice(unit, index, None if unit.is_key else self.slices[index])
            for index in range(len(unit.slices))
        ]
        if len(self._lost) > before:
            logger.warning(
                "frame %d: %d of %d slices are damaged and stay as they were until a key frame",
                number, len(self._lost) - before, len(unit.slices),
            )  # fmt: skip

    def _must_be_key(self, number: int) -> bool:
        return self._container.scene.key_before(number) == number

    def _unit(self, number: int) -> Unit:
        unit = unpack_unit(self._container.units[number], number, slices_max=self._slices_max)
        if self._must_be_key(number) and not unit.is_key:
            raise BitstreamError(f"frame {number}: want a key frame")
        if not unit.is_key and len(unit.slices) != len(self.slices):
            raise BitstreamError(
                f"frame {number}: want {len(self.slices)} slices, got {len(unit.slices)}"
            )
        return unit

    def _slice(self, unit: Unit, index: int, before: SliceState | None) -> SliceState:
        """A slice after a unit; as it was before if it is lost."""
        if before is not None and index in self._lost:
            return before
        payload = unit.slices[index]
        if payload is None:
            if before is None or not self._hold:
                raise BitstreamError(f"frame {unit.frame}: slice {index} is damaged")
            self._lost.add(index)
            return before
        streams = unpack_streams(payload, self.scene.streams)
        decoder = Decoder({name: streams[name] for name in self._wanted})
        symbols = self.scene.traverse(decoder, None, before, self._layers)
        decoder.finish()
        self._digest.add(symbols)
        return self.scene.after(symbols, before)

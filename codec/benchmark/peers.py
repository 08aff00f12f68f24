"""Anchors and our own models behind one interface, so that the runner treats both alike.

Knows the API of the package and the anchors; measures time, not quality. Imports torch only when a
model is made ready.
"""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
from PIL import Image

import codec
from codec.benchmark.anchors import ANCHORS, Anchor
from codec.progress import Stopwatch
from codec.weights import Zoo

__all__ = ["MODEL_QUALITIES", "AbstractPeer", "AnchorPeer", "ModelPeer", "Seconds", "find_peer"]

MODEL_QUALITIES = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)


@dataclass(frozen=True)
class Seconds:
    """Wall time of one call, and its parts where the codec tells them."""

    total: float
    transform: float | None = None
    entropy: float | None = None


class AbstractPeer(ABC):
    """A codec under test.

    Attributes:
        name: in the tables; a model's is `family` or `family/variant`.
        suffix: of its files.
        qualities: what it is run at, the smallest file first.
        integral: whether a quality has to be a whole number.
        made_by: what a row of its table depends on besides the image and the quality.
        device: "cpu" or "cuda".
        threads: how many it uses in one process.
    """

    name: str
    suffix: str
    qualities: tuple[float, ...]
    integral: bool
    made_by: str
    device: str
    threads: int

    def get_ready(self) -> None:
        """Load what the first call would load, by a call on a small image."""
        data, _ = self.encode(Image.new("RGB", (64, 64), "teal"), self.qualities[0])
        self.decode(data)

    @abstractmethod
    def encode(self, image: Image.Image, quality: float) -> tuple[bytes, Seconds]:
        """An RGB image to the bytes of a file."""

    @abstractmethod
    def decode(self, data: bytes) -> tuple[Image.Image, Seconds]:
        """The bytes of a file to an RGB image."""


@final
class AnchorPeer(AbstractPeer):
    """One of the anchors."""

    def __init__(self, anchor: Anchor) -> None:
        self.name = anchor.name
        self.suffix = anchor.suffix
        self.qualities = anchor.qualities
        self.integral = anchor.integral
        self.made_by = f"{anchor.version()}: {anchor.settings}"
        self.device = "cpu"
        self.threads = anchor.threads
        self._anchor = anchor

    def encode(self, image: Image.Image, quality: float) -> tuple[bytes, Seconds]:
        """See the base class; an anchor does not tell the parts of its time."""
        began = time.perf_counter()
        data = self._anchor.encode(image, quality)
        return data, Seconds(time.perf_counter() - began)

    def decode(self, data: bytes) -> tuple[Image.Image, Seconds]:
        """See the base class."""
        began = time.perf_counter()
        image = self._anchor.decode(data)
        return image, Seconds(time.perf_counter() - began)


@final
class ModelPeer(AbstractPeer):
    """One of our models, through the calls that `codec.encode` and `codec.decode` make."""

    def __init__(self, model: str, *, device: str, zoo: Zoo) -> None:
        """Look the model up in the list of weights; nothing heavy is loaded.

        Raises:
            UsageError: there is no such model.
            ModelError: its weights are not there.
        """
        entry = zoo.find(model)
        self.name = model
        self.suffix = ".lc"
        self.qualities = MODEL_QUALITIES
        self.integral = True
        self.made_by = f"codec {codec.__version__}: {entry.name} {entry.sha256[:16]}"
        self.device = device
        self.threads = 1
        self._zoo = zoo

    def encode(self, image: Image.Image, quality: float) -> tuple[bytes, Seconds]:
        """See the base class."""
        from codec.api import EncodeOptions, encode_picture
        from codec.io.picture import Picture

        options = EncodeOptions(
            model=self.name, quality=int(quality), device=self.device, zoo=self._zoo
        )
        watch = Stopwatch()
        encoded = encode_picture(Picture.from_array(np.asarray(image)), options, watch=watch)
        return encoded.stream, _seconds(watch)

    def decode(self, data: bytes) -> tuple[Image.Image, Seconds]:
        """See the base class."""
        from codec.api import DecodeOptions, decode_stream

        options = DecodeOptions(device=self.device, zoo=self._zoo)
        watch = Stopwatch()
        image = decode_stream(data, options, watch=watch).picture.to_image()
        return image, _seconds(watch)


def _seconds(watch: Stopwatch) -> Seconds:
    seconds = watch.seconds
    return Seconds(seconds["total"], seconds["transform"], seconds["entropy"])


def find_peer(name: str, *, device: str, zoo: Zoo) -> AbstractPeer:
    """The anchor of this name, else our model of this name."""
    if name in ANCHORS:
        return AnchorPeer(ANCHORS[name])
    return ModelPeer(name, device=device, zoo=zoo)

"""Runs codecs over a folder of images and keeps every file and every figure.

Knows peers and rows; knows nothing of curves and reports. Each (image, codec, quality) is one task
of one process; a row reaches the table only after its file is on disk, so a killed run is resumed
by running it again: rows whose image, origin and file are unchanged are kept.
"""

import functools
import hashlib
import logging
import multiprocessing
import os
import threading
import time
import unicodedata
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from codec.benchmark.peers import AbstractPeer, find_peer
from codec.benchmark.rows import Row, append_row, read_rows, write_rows
from codec.errors import InputError
from codec.io.files import write_whole
from codec.metrics import ms_ssim, ms_ssim_db, psnr, psnr_y
from codec.progress import Progress, unseen
from codec.weights import Zoo

__all__ = [
    "Failure",
    "Skipped",
    "Source",
    "Task",
    "measure",
    "middle",
    "read_rgb",
    "survey",
]

_logger = logging.getLogger(__name__)

# Modes that become 8-bit RGB without losing more than an alpha plane.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")

# The side of the square in the middle of an image that a report shows.
CROP_SIDE = 384


@dataclass(frozen=True)
class Source:
    """An image of the folder: its path, the hash of the file, its size in pixels."""

    path: Path
    sha256: str
    width: int
    height: int


@dataclass(frozen=True)
class Skipped:
    """A file of the folder that is no image for this benchmark, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Task:
    """One row to be made.

    Attributes:
        streams: the folder of the files that count.
        zoo: where the weights are, if the codec is a model.
        crops: a folder for the middle of what was decoded, losslessly; None to keep none.
    """

    source: Source
    codec: str
    quality: float
    made_by: str
    device: str
    suffix: str
    streams: Path
    zoo: Zoo
    crops: Path | None = None

    @property
    def stream(self) -> Path:
        """Where the compressed file goes."""
        return self._file(self.streams, self.suffix)

    @property
    def crop(self) -> Path | None:
        """Where the middle of the decoded image goes."""
        return None if self.crops is None else self._file(self.crops, ".png")

    def _file(self, folder: Path, suffix: str) -> Path:
        name = f"{self.source.path.name}{suffix}"
        return folder / self.codec.replace("/", "-") / f"{self.quality:g}" / name


@dataclass(frozen=True)
class Failure:
    """A task that raised: what it was and what it said."""

    file: str
    codec: str
    quality: float
    reason: str


def survey(folder: Path) -> tuple[tuple[Source, ...], tuple[Skipped, ...]]:
    """The images of a folder in the order of their names, and what is none.

    Raises:
        InputError: it is no folder, or holds no image.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: want a folder of images")
    sources, skipped = [], []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        try:
            image = read_rgb(path)
        except InputError as error:
            name = os.fsencode(path.name).decode(errors="replace")
            skipped.append(Skipped(name, str(error)))
            _logger.warning("%s: skipped: %s", name, error)
            continue
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        sources.append(Source(path, digest, image.width, image.height))
    if not sources:
        raise InputError(f"{folder}: holds no image")
    return tuple(sources), tuple(skipped)


def read_rgb(path: Path) -> Image.Image:
    """The pixels of an image file as 8-bit RGB, without alpha, profile or any other metadata.

    Raises:
        InputError: it is no image, is damaged, is deeper than 8 bits, or has a name that a table
            cannot hold.
    """
    if any(unicodedata.category(letter) == "Cs" for letter in path.name):
        raise InputError("its name is not UTF-8")
    try:
        with Image.open(path) as opened:
            mode = opened.mode
            pixels = np.asarray(opened.convert("RGB"))
    except Exception as error:  # Pillow's plugins raise whatever they meet in a damaged file
        raise InputError(f"not an image: {type(error).__name__}") from error
    if mode not in _MODES:
        raise InputError(f"mode {mode} is not an 8-bit image")
    return Image.fromarray(pixels)


def middle(image: Image.Image) -> Image.Image:
    """The middle of an image, at most `CROP_SIDE` pixels wide and high."""
    width, height = (min(side, CROP_SIDE) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def measure(
    tasks: Sequence[Task], table: Path, *, jobs: int, progress: Progress = unseen
) -> tuple[list[Row], list[Failure]]:
    """Make the rows of all tasks that `table` does not hold yet; then sort it.

    Args:
        tasks: rows of the table that belong to none of them are dropped.
        table: the CSV; it is begun if it is not there.
        jobs: number of processes, each on one thread.
        progress: told the part of the rows that are there.

    Returns:
        The rows of the table, and the tasks that raised; these are tried again the next time.
    """
    kept = _still_true(read_rows(table), tasks) if table.exists() else {}
    write_rows(table, kept.values())
    failures = []
    done = len(kept)
    progress(done / max(len(tasks), 1))
    # New processes rather than copies of this one: torch and its threads do not survive a fork.
    pool = ProcessPoolExecutor(
        jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_settle
    )
    try:
        pending = [pool.submit(_attempt, task) for task in tasks if task not in kept]
        for future in as_completed(pending):
            result = future.result()
            if isinstance(result, Failure):
                failures.append(result)
                _logger.warning(
                    "%s: %s at %g failed: %s",
                    result.file,
                    result.codec,
                    result.quality,
                    result.reason,
                )
            else:
                append_row(table, result)
            done += 1
            progress(done / len(tasks))
    finally:
        pool.shutdown(cancel_futures=True)
    # Read again, so that a resumed run works with the very figures of an uninterrupted one.
    write_rows(table, read_rows(table))
    return read_rows(table), failures


def _still_true(rows: Iterable[Row], tasks: Sequence[Task]) -> dict[Task, Row]:
    """The rows that a task would make again, and whose file is still there."""
    wanted = {(task.source.path.name, task.codec, task.quality): task for task in tasks}
    kept = {}
    for row in rows:
        task = wanted.get((row.file, row.codec, row.quality))
        if (
            task is not None
            and (row.made_by, row.device) == (task.made_by, task.device)
            and row.image_sha256 == task.source.sha256[: len(row.image_sha256)]
            and task.stream.is_file()
            and task.stream.stat().st_size == row.bytes
            and (task.crop is None or task.crop.is_file())
        ):
            kept[task] = row
    return kept


def _settle() -> None:
    """Prepare a process of the pool: one thread, and no life after its parent's."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    # A killed parent closes no queue, so its processes would wait for a task for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


@functools.lru_cache(maxsize=1)
def _image(path: Path) -> Image.Image:
    return read_rgb(path)


@functools.cache
def _ready_peer(name: str, device: str, zoo: Zoo) -> tuple[AbstractPeer, float]:
    """The codec, ready to run in this process, and the seconds that took."""
    began = time.perf_counter()
    codec = find_peer(name, device=device, zoo=zoo)
    codec.get_ready()
    return codec, time.perf_counter() - began


def _attempt(task: Task) -> Row | Failure:
    try:
        return _row(task)
    except Exception as error:  # one image that one codec cannot take must not end the run
        reason = f"{type(error).__name__}: {error}"
        return Failure(task.source.path.name, task.codec, task.quality, reason)


def _row(task: Task) -> Row:
    codec, load_s = _ready_peer(task.codec, task.device, task.zoo)
    image = _image(task.source.path)
    data, encoding = codec.encode(image, task.quality)
    task.stream.parent.mkdir(parents=True, exist_ok=True)
    write_whole(task.stream, data)
    size = task.stream.stat().st_size
    decoded, decoding = codec.decode(task.stream.read_bytes())
    if task.crop is not None:
        task.crop.parent.mkdir(parents=True, exist_ok=True)
        middle(decoded).save(task.crop)
    similarity = ms_ssim(image, decoded)
    return Row(
        file=task.source.path.name,
        image_sha256=task.source.sha256[:16],
        width=image.width,
        height=image.height,
        codec=task.codec,
        made_by=task.made_by,
        quality=task.quality,
        bytes=size,
        bpp=8 * size / (image.width * image.height),
        psnr_rgb=psnr(image, decoded),
        psnr_y=psnr_y(image, decoded),
        ms_ssim=similarity,
        ms_ssim_db=ms_ssim_db(similarity),
        device=task.device,
        threads=codec.threads,
        load_s=load_s,
        encode_s=encoding.total,
        encode_transform_s=encoding.transform,
        encode_entropy_s=encoding.entropy,
        decode_s=decoding.total,
        decode_transform_s=decoding.transform,
        decode_entropy_s=decoding.entropy,
    )

"""Many at once give what one alone gives. In fresh processes: nothing is loaded when they begin."""

import subprocess
import sys
from pathlib import Path

VECTORS = Path(__file__).parents[1] / "vectors/v1"

START = """
import io
import multiprocessing
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from skimage import data

import codec

torch.set_num_threads(1)
PHOTO = data.astronaut()[:48, 100:164]
IMAGES = [PHOTO, PHOTO[:, :, 0], np.dstack([PHOTO, PHOTO[:, :, 1]]), PHOTO[:30].astype("u2") * 257]


def both(number):
    stream = codec.encode(IMAGES[number % 4], quality=20 * (number // 4))
    return stream, np.asarray(codec.decode(stream)).tobytes()
"""

THREADS = """
ready = threading.Barrier(8)


def together(number):
    ready.wait()
    return both(number)


with ThreadPoolExecutor(8) as pool:
    first = list(pool.map(together, range(8)))
    second = list(pool.map(together, range(8, 16)))
assert first + second == [both(number) for number in range(16)]
"""

# OpenMP has threads of its own when the process forks, as it has in every program that decoded.
FORKS = """
alone = [both(number) for number in range(8)]
torch.set_num_threads(2)
codec.decode(codec.encode(np.tile(PHOTO, (4, 4, 1))))
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map_async(both, range(8)).get(timeout=100) == alone
"""

# Fits share kernels and optimisers, and take seconds.
FITS = """
def fit(number):
    return codec.encode(PHOTO[number : number + 24, :32], quality=40 + 20 * number, model="inr")


with ThreadPoolExecutor(2) as pool:
    assert list(pool.map(fit, range(2))) == [fit(number) for number in range(2)]
"""

GOLDEN = """
import json
from pathlib import Path
from codec.api import DecodeOptions, decode_stream, open_scene, open_video
from codec.bitstream import Kind, peek
from codec.progress import Stopwatch
from codec.weights import SHIPPED, Zoo

paths = sorted(Path(sys.argv[1]).glob("*/*.bin"))
assert len({path.parent for path in paths}) >= 3
ready = threading.Barrier(8)


def symbols(path):
    zoo = Zoo(path.parent) if (path.parent / "manifest.json").exists() else SHIPPED
    stream = path.read_bytes()
    opener = {Kind.VIDEO: open_video, Kind.SCENE: open_scene}.get(peek(stream).kind)
    if opener is not None:
        opened = opener(stream, DecodeOptions(zoo=zoo), watch=Stopwatch())
        assert len(list(opened.frames)) == len(opened.interval)
        return opened.digest.hexdigest()
    return decode_stream(stream, DecodeOptions(zoo=zoo), watch=Stopwatch()).symbols_sha256


def all_of_them(first):
    ready.wait()
    return {path: symbols(path) for path in paths[first:] + paths[:first]}


expected = {p: json.loads(p.with_suffix(".json").read_text())["symbols_sha256"] for p in paths}
with ThreadPoolExecutor(8) as pool:
    for found in pool.map(all_of_them, range(8)):
        assert found == expected
"""


def run(code):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", START + code, str(VECTORS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_eight_threads_at_once_give_what_one_gives():
    run(THREADS)


def test_two_fits_at_once_give_what_one_gives():
    run(FITS)


def test_eight_threads_at_once_decode_the_golden_streams_of_every_family():
    run(GOLDEN)


def test_forked_processes_give_what_one_gives():
    run(FORKS)

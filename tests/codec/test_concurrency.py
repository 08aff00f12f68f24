"""Many at once give what one alone gives. In fresh processes: nothing is loaded when they begin."""

import subprocess
import sys

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


def run(code):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", START + code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_eight_threads_at_once_give_what_one_gives():
    run(THREADS)


def test_forked_processes_give_what_one_gives():
    run(FORKS)

"""Rate-distortion benchmarks: our models and the codecs people would pick instead, as real files.

Knows the API of the package and the libraries of the anchors; knows no network's inside. Importing
it imports neither torch nor matplotlib.
"""

from codec.benchmark.evaluate import Options as Options
from codec.benchmark.evaluate import run as run
from codec.benchmark.result import Result as Result

__all__ = ["Options", "Result", "run"]

"""`codec bench`: the options of a benchmark and its progress. Knows nothing of how it is run."""

import argparse
import shlex
import sys
from pathlib import Path

from codec.benchmark.anchors import ANCHORS, GROUPS
from codec.benchmark.evaluate import Options
from codec.benchmark.evaluate import run as run_benchmark
from codec.errors import UsageError
from codec.progress import Bar

__all__ = ["add_arguments", "names", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell `parser` the options of `codec bench`."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="a folder of images")
    parser.add_argument(
        "--models",
        type=names,
        default=Options.models,
        metavar="A,B",
        help="our models, FAMILY or FAMILY/VARIANT; '' for none (default: iscs)",
    )
    parser.add_argument(
        "--anchors",
        type=names,
        default=Options.anchors,
        metavar="A,B",
        help=f"other codecs: {', '.join(GROUPS)}, or one setting of {', '.join(ANCHORS)}; "
        "'' for none (default: all)",
    )
    parser.add_argument(
        "--qualities",
        type=_numbers,
        default=None,
        metavar="N,M",
        help="qualities of our models, 0..100 (default: steps of ten)",
    )
    parser.add_argument(
        "--published",
        type=Path,
        action="append",
        default=[],
        metavar="JSON",
        help="published points to draw beside; may be given more than once",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("report"), metavar="DIR", help="default: report"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of our models")


def run(args: argparse.Namespace) -> int:
    """Run the benchmark that the parsed arguments ask for and print where the report is.

    Returns:
        0; errors are raised as CodecError.
    """
    options = Options(
        models=args.models,
        anchors=args.anchors,
        qualities=args.qualities,
        device=args.device,
        jobs=args.jobs,
        published=tuple(args.published),
        command=_command(args),
    )
    bar = Bar(sys.stderr)
    try:
        result = run_benchmark(args.folder, args.out, options=options, progress=bar)
    finally:
        bar.close()
    for name, reason in result.missing.items():
        print(f"codec: anchor {name} is missing: {reason}", file=sys.stderr)
    print(result.report)
    return 0


def names(text: str) -> tuple[str, ...]:
    """The names in a list with commas; none in an empty text."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _command(args: argparse.Namespace) -> str:
    """The call that does the same again."""
    words = ["codec", "bench", str(args.folder)]
    words += ["--models", ",".join(args.models), "--anchors", ",".join(args.anchors)]
    if args.qualities is not None:
        words += ["--qualities", ",".join(map(str, args.qualities))]
    for path in args.published:
        words += ["--published", str(path)]
    words += ["--jobs", str(args.jobs), "--device", args.device, "--out", str(args.out)]
    return shlex.join(words)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise UsageError(f"qualities: want whole numbers with commas, got {text!r}") from error

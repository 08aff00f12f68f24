"""The README's results, made from the committed table of a release and from nothing else.

    python benchmarks/readme.py            write them into README.md, and the plot into docs/
    python benchmarks/readme.py --check    exit with 1 if that would change anything

They stand between two lines of the README, `<!-- benchmark: begin -->` and `<!-- benchmark: end
-->`. The plot carries the hash of the table that it shows, so checking draws nothing.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import codec
from codec.benchmark import plots
from codec.benchmark.rows import read_rows
from codec.benchmark.summary import Comparison, Curve, compare_all, curves_of, read_published

ROOT = Path(__file__).parents[1]
PLOT = Path("docs/kodak.svg")
BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"


def results(root: Path, version: str) -> tuple[str, str]:
    """The text between the two lines, and the title of the plot, for one release."""
    folder = root / "benchmarks" / "results" / version
    table = folder / "kodak.csv"
    curves = curves_of(read_rows(table))
    head = json.loads((folder / "kodak.json").read_text(encoding="utf-8"))["head"]
    digest = hashlib.sha256(table.read_bytes()).hexdigest()[:16]
    title = f"Kodak, {head['images']} images, codec {version}, table {digest}"
    return describe(curves, head["date"], head["machine"]), title


def describe(curves: Sequence[Curve], date: str, machine: str) -> str:
    """A table of the first curve, which is ours if there is one, against each of the others."""
    subject, *others = curves
    compared = compare_all(curves, generator=np.random.default_rng(0), metrics=["psnr_rgb"])
    lines = [
        f"![Rate and distortion on Kodak]({PLOT.as_posix()})",
        "",
        f"Bytes of {subject.label} against each codec at equal RGB PSNR (BD-rate, PCHIP; less than "
        "0: smaller files), with the interval that holds 95 % of draws of as many images; median "
        f"seconds per image on one thread (AVIF: two) of {machine}, {date}.",
        "",
        "| against | BD of the mean curve | mean of the images' BD | over | encode | decode |",
        "|---|---|---|---|---|---|",
        f"| {subject.label} itself | | | | {_seconds(subject)} |",
    ]
    for anchor in others:
        found = [
            item
            for item in compared
            if (item.anchor, item.test) == (anchor.name, subject.name)
            and item.interpolation == "pchip"
        ]
        by_rule = {item.rule: item for item in found}
        low, high = by_rule["mean curve"].result.low_db, by_rule["mean curve"].result.high_db
        lines.append(
            f"| {anchor.label} | {_rate(by_rule['mean curve'])} "
            f"| {_rate(by_rule['mean of images'])} | {low:.1f} to {high:.1f} dB "
            f"| {_seconds(anchor)} |"
        )
    return "\n".join(lines)


def inserted(readme: str, text: str) -> str:
    """The README with `text` between the two lines; a ValueError if they are not there."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md: want the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def _rate(item: Comparison) -> str:
    return (
        f"{item.result.rate_percent:+.1f} % ({item.low_percent:+.1f} to {item.high_percent:+.1f})"
    )


def _seconds(curve: Curve) -> str:
    encode = np.median([row.encode_s for row in curve.rows])
    decode = np.median([row.decode_s for row in curve.rows])
    return f"{encode:.2g} s | {decode:.2g} s"


def main() -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--version", default=codec.__version__)
    parser.add_argument("--root", type=Path, default=ROOT)
    args = parser.parse_args()
    text, title = results(args.root, args.version)
    readme, plot = args.root / "README.md", args.root / PLOT
    old = readme.read_text(encoding="utf-8")
    new = inserted(old, text)
    if args.check:
        shown = plot.read_text(encoding="utf-8") if plot.exists() else ""
        for path, same in ((readme, new == old), (plot, title in shown)):
            if not same:
                print(f"{path}: run python benchmarks/readme.py", file=sys.stderr)
        return 0 if new == old and title in shown else 1
    rows = read_rows(args.root / "benchmarks" / "results" / args.version / "kodak.csv")
    published = args.root / "benchmarks" / "published" / "kodak.json"
    curves = (*curves_of(rows), *read_published(published))
    plot.write_bytes(plots.draw(curves, "psnr_rgb", title=title, kind="svg"))
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The Kodak table of a release: runs `codec bench` as the README says and keeps its figures.

    python benchmarks/rd.py KODAK [--jobs N] [--models A,B] [--anchors A,B] [--out DIR]

KODAK is a folder with the 24 images. The report goes to `--out`; the table of rows and the curves
with where they come from go to `benchmarks/results/VERSION/`, to be committed. Afterwards
`python benchmarks/readme.py` puts them into the README. A run that was cut short is resumed.
"""

import argparse
import json
import sys
from pathlib import Path

import codec
from codec.benchmark import Options, run
from codec.benchmark.cli import names
from codec.io.files import write_whole
from codec.progress import Bar

HERE = Path(__file__).parent
PUBLISHED = HERE / "published" / "kodak.json"


def main() -> None:
    """Run the benchmark and copy what is to be committed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kodak", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--models", type=names, default=Options.models)
    parser.add_argument("--anchors", type=names, default=Options.anchors)
    parser.add_argument("--out", type=Path, default=Path("runs/kodak"))
    args = parser.parse_args()
    options = Options(
        models=args.models,
        anchors=args.anchors,
        jobs=args.jobs,
        published=(PUBLISHED,),
        command=f"python benchmarks/rd.py {args.kodak.name}",
    )
    bar = Bar(sys.stderr)
    result = run(args.kodak, args.out, options=options, progress=bar)
    bar.close()
    results = HERE / "results" / codec.__version__
    results.mkdir(parents=True, exist_ok=True)
    write_whole(results / "kodak.csv", (args.out / "images.csv").read_bytes())
    found = json.loads((args.out / "results.json").read_text(encoding="utf-8"))
    kept = {key: found[key] for key in ("head", "curves", "missing", "failures")}
    text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
    write_whole(results / "kodak.json", text.encode())
    print(result.report)


if __name__ == "__main__":
    main()

"""Mutations that coverage guides, for atheris: the same promises as in `benchmarks/fuzz.py`.

    pip install atheris
    python benchmarks/fuzz_guided.py TARGET FOLDER -runs=100000 -max_len=2000

TARGET is `stream`, `container`, or a family, whose decoder then gets the bytes of a tile
(`benchmarks/fuzz_targets.py`). FOLDER gets the golden streams to start from and what is found to
reach new code; what breaks a promise goes to the working directory as `crash-HASH`.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
with atheris.instrument_imports(include=["codec"]):
    from benchmarks.fuzz_targets import NAMES, starts, target


def main() -> None:
    """Fuzz until atheris has had enough; it ends the process."""
    if len(sys.argv) < 3 or sys.argv[1] not in NAMES:
        sys.exit(f"want one of {', '.join(NAMES)}, a folder, and options of atheris")
    name, folder = sys.argv.pop(1), Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(starts(name)):
        (folder / f"start-{number}").write_bytes(start)
    atheris.Setup(sys.argv, target(name))
    atheris.Fuzz()


if __name__ == "__main__":
    main()

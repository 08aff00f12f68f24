"""Mutations that coverage guides, for atheris: the same promises as in `benchmarks/fuzz.py`.

    pip install atheris
    python benchmarks/fuzz_guided.py -runs=100000 -max_len=2000 FOLDER tests/corpus

atheris puts what it finds into FOLDER. Checksums are made right before a stream is decoded, or
hardly any mutation would be.
"""

import sys
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["codec"]):
    from fuzz import assemble, judge, take_apart

    from codec.errors import CodecError


def target(stream: bytes) -> None:
    """One input."""
    with suppress(CodecError):  # what cannot be taken apart is judged as it is
        stream = assemble(take_apart(stream))
    judge(stream, len(stream))


if __name__ == "__main__":
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()

"""Options and fixtures of every test."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# Kernels compile on first use and machines are shared: no example has a deadline.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

# Kernels for a GPU run in Triton's interpreter, which it decides on when it is imported.
os.environ.setdefault("TRITON_INTERPRET", "1")

VECTORS = Path(__file__).parent / "vectors"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-golden",
        action="store_true",
        help="write the golden files of the selected tests instead of comparing with them",
    )


@pytest.fixture
def check_golden(request: pytest.FixtureRequest) -> Callable[[str, bytes], None]:
    """Compare bytes with a committed file under tests/vectors; a plain run never makes one.

    A file that is missing is a failure: if it were made again, losing it would pass.
    """

    def check(name: str, actual: bytes) -> None:
        path = VECTORS / name
        if request.config.getoption("--write-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(actual)
            pytest.skip(f"wrote {path}; review it")
        assert path.exists(), f"{path} is missing; only --write-golden makes golden files"
        assert path.read_bytes() == actual

    return check

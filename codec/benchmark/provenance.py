"""Where the figures of a run come from: versions, machine, inputs. Knows no codec and no row."""

import datetime
import hashlib
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import codec

__all__ = ["commit", "image_list_sha256", "libraries", "machine", "origin", "today"]

LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "numba",
    "constriction",
    "pillow",
    "imagecodecs",
    "pillow-heif",
    "matplotlib",
    "zstandard",
    "fourdgs",
    "splats4d",
)


def origin() -> dict[str, object]:
    """All of it that every result says: commit, date, machine and libraries."""
    return {
        "commit": commit(),
        "date": today(),
        "machine": machine(),
        "libraries": libraries(),
    }


def libraries() -> dict[str, str]:
    """The versions of the libraries that take part; those that are not installed are left out."""
    found = {"codec": codec.__version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Processor and system, as far as they can be found out."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = models[0] if models else processor
    return f"{processor}, {platform.system()} {platform.machine()}"


def commit() -> str | None:
    """The commit of this checkout, with "-dirty" if it was changed since; None if installed."""
    folder = Path(codec.__file__).parent
    try:
        # An installed package may lie inside of somebody's repository without being part of it.
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def today() -> str:
    """The date in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


def image_list_sha256(images: Iterable[tuple[str, str]]) -> str:
    """One hash for a list of (file name, hash of the file)."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in images)
    return hashlib.sha256(lines.encode()).hexdigest()

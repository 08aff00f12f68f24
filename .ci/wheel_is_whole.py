"""Check that a wheel, the one argument, holds every file of the package and no other.

Guards against a sub-package or a weight file that is in the checkout but not in what users install.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

PARTS = ("bitstream", "datasets", "entropy", "models")


def wanted() -> set[str]:
    """Committed files of the five folders but notes, by their names in a wheel."""
    command = ["git", "ls-files", "-z", "--", "codec", *PARTS]
    committed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = set()
    for name in filter(None, committed.split("\0")):
        path = Path(name)
        # Links are codec/entropy and the like, for the checkout only; notes are for its readers.
        if not path.is_symlink() and path.suffix != ".md":
            names.add(name if path.parts[0] == "codec" else f"codec/{name}")
    return names


def main(wheel: str) -> int:
    """Print what is missing or too much; 0 if nothing is."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    missing, foreign = sorted(wanted() - held), sorted(held - wanted())
    print(f"{wheel}: {len(held)} files, missing: {missing}, not of the package: {foreign}")
    return int(bool(missing or foreign))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

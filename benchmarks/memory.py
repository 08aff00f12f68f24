"""Peak memory of a 100-megapixel image, encoded and decoded, and what its tiles' borders look like.

    python benchmarks/memory.py [--size 12000x8400] [--model iscs]
        [--out benchmarks/results/memory.json]

The image is scikit-image's astronaut, mirrored until it is large enough. Every verb is a process
of its own, whose peak of resident memory the kernel counts (Linux).

Seams are measured on a smaller image, which also fits into one tile. `synthesis` compares pixels of
the same latents, joined tile by tile and in one piece: the share of those near a border that are
less than a level of 255 apart. `psnr` is that of the pixels near a border and of all others when
the image is coded in tiles and as one: its latents then differ, its quality should not.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data

import codec
from codec.benchmark.provenance import origin
from codec.bitstream import Box, Header
from codec.metrics import psnr
from codec.tiling import analyse_tile, geometry_of, reconstruct
from codec.weights import SHIPPED

RESULT = Path(__file__).parent / "results/memory.json"
BAR_MB = 2000
SEAM_SIDE = 2048
NEAR = 32  # pixels on each side of a border
CHILD = """
import re, sys
from pathlib import Path
from codec.cli import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
sys.exit(code)
"""


def photo(width: int, height: int) -> NDArray[np.uint8]:
    """A photograph mirrored at its edges, `(height, width, 3)`."""
    image = data.astronaut()
    return np.pad(
        image, ((0, height - 512), (0, width - 512), (0, 0)), mode="symmetric"
    )  # scikit-image's is 512 x 512


def run(*words: str | Path) -> dict[str, float]:
    """Seconds and peak of resident memory of one command."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, words)], check=True, capture_output=True, text=True
    )
    seconds = round(time.perf_counter() - started, 1)
    return {"seconds": seconds, "peak_mb": round(int(done.stdout) * 1024 / 1e6)}


def verbs(size: tuple[int, int], model: str) -> dict[str, Any]:
    """Encode, decode and decode a region, in processes of their own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, stream, back = (folder / name for name in ("a.png", "a.bin", "b.png"))
        Image.fromarray(photo(*size)).save(source, compress_level=1)
        found: dict[str, Any] = {"encode": run("encode", source, stream, "-m", model)}
        found["decode"] = run("decode", stream, back)
        width, height = size
        region = f"{width // 2},{height // 2},{width // 12},{height // 12}"
        found["decode --region"] = run("decode", stream, back, "--force", "--region", region)
        found["bytes"] = stream.stat().st_size
    return found


def seams(name: str) -> dict[str, Any]:
    """How far tiles are from one piece near their borders."""
    model = codec.load_model(name, device="cpu")
    family = model.family
    image = photo(SEAM_SIDE, SEAM_SIDE)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    header = model.header(width=SEAM_SIDE, height=SEAM_SIDE, quality=60)

    def pixels(box: Box) -> torch.Tensor:
        return x[:, :, box.top : box.top + box.height, box.left : box.left + box.width]

    def decoded(header: Header) -> tuple[list[torch.Tensor], torch.Tensor]:
        latents = [
            family.dequantise(
                analyse_tile(family, pixels, header, number), geometry_of(header, number)
            )
            for number in range(header.tiles)
        ]
        x_hat = torch.empty_like(x)
        whole = Box(0, 0, SEAM_SIDE, SEAM_SIDE)
        for box, part in reconstruct(family, latents.__getitem__, header, whole):
            x_hat[:, :, box.top :, box.left :][:, :, : box.height, : box.width] = part
        return latents, x_hat

    latents, tiled = decoded(header)
    rows = [
        torch.cat(latents[at : at + header.columns], dim=3)
        for at in range(0, header.tiles, header.columns)
    ]
    joined = family.synthesise(torch.cat(rows, dim=2), header.quality)
    alone = decoded(replace(header, tile=0))[1]

    place = np.arange(SEAM_SIDE) % header.tile
    near = (place < NEAR) | (place >= header.tile - NEAR)
    near[:NEAR] = near[-NEAR:] = False  # the image's own border
    border = near[:, None] | near[None, :]
    apart = 255 * (tiled.clamp(0, 1) - joined.clamp(0, 1)).abs().amax(dim=1)[0].numpy()

    def quality(x_hat: torch.Tensor, where: NDArray[np.bool_]) -> float:
        levels = (x_hat[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        return round(psnr(image[where][None], levels[where][None]), 3)

    return {
        "size": [SEAM_SIDE, SEAM_SIDE],
        "tiles": header.tiles,
        "pixels_near_borders": int(border.sum()),
        "synthesis": {
            "share_below_one_level": float((apart[border] < 1).mean()),
            "largest_levels": round(float(apart[border].max()), 5),
        },
        "psnr": {
            form: {"near borders": quality(found, border), "elsewhere": quality(found, ~border)}
            for form, found in (("in tiles", tiled), ("as one", alone))
        },
    }


def main() -> None:
    """Measure, print, write JSON; the exit code says whether all bars hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--size", default="12000x8400")
    parser.add_argument("--model", default="iscs")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    match = re.fullmatch(r"(\d+)x(\d+)", options.size)
    if match is None:
        parser.error("--size: want WIDTHxHEIGHT")
    size = (int(match[1]), int(match[2]))

    entry = SHIPPED.find(options.model)
    result = {
        "command": f"python benchmarks/memory.py --size {options.size} --model {options.model}",
        **origin(),
        "threads": torch.get_num_threads(),
        "model": entry.name,
        "weights": entry.sha256,
        "size": size,
        "bar_mb": BAR_MB,
        "verbs": verbs(size, options.model),
        "seams": seams(options.model),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    peaks = [row["peak_mb"] for row in result["verbs"].values() if isinstance(row, dict)]
    share = result["seams"]["synthesis"]["share_below_one_level"]
    sys.exit(max(peaks) > BAR_MB or share < 0.999)


if __name__ == "__main__":
    main()

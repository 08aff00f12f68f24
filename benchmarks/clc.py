"""What references are worth: `clc` with none, random, retrieved and oracle entries of dictionaries.

    python benchmarks/clc.py KODAK CLIC VIDEO SCREEN [--sets kodak,clic,camera,screen]
        [--every 1] [--clip carphone_pristine.mp4] [--out FILE]

Real files at four qualities; BD-rate against `iscs` of the same weights, whose files are those of
none. Kodak and CLIC are coded with the shipped dictionary; for domains one is built of a part that
is not coded:

    camera   every other frame of the first half of a clip; coded are some of the second half
    screen   every other square of 256x256 of screenshots; coded are the others

With random references entries change places, so that whoever looks for the nearest finds another;
the oracle's dictionary is made of the pictures themselves; "nothing trained" is the written choice
alone. One thread.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import codec
from codec.benchmark.provenance import origin
from codec.bitstream import unpack, unpack_streams
from codec.dictionaries import build, read_dictionary
from codec.engine import Model
from codec.entropy import BitCounter, Decoder, Method
from codec.metrics import bd_rate, psnr
from codec.models.clc import Clc
from codec.models.clc.codec import WIDTH
from codec.registry import family_by_name
from codec.tiling import geometry_of
from codec.weights import SHIPPED

QUALITIES = (15, 35, 55, 75)

Picture: TypeAlias = NDArray[np.uint8]
"""`(H, W, 3)`."""


def main() -> None:
    """Write one JSON file and print each row of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    for name in ("kodak", "clic", "video", "screen"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--sets", default="kodak,clic,camera,screen")
    parser.add_argument("--every", type=int, default=1, help="only each n-th photograph")
    parser.add_argument("--clip", default="carphone_pristine.mp4", help="of VIDEO, for camera")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/clc.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    every = options.every
    frames = frames_of(options.video / options.clip)
    squares = squares_of(options.screen)
    rows = []
    sets = {
        "kodak": (pictures_of(options.kodak)[::every], None),
        "clic": (pictures_of(options.clic)[::every], None),
        "camera": (frames[len(frames) // 2 :: 10], frames[: len(frames) // 2 : 2]),
        "screen": (squares[1::12], squares[::2]),
    }
    for name in options.sets.split(","):
        for row in rows_of(name, *sets[name]):
            rows.append(row)
            print(json.dumps(row), flush=True)
    result = {
        "command": f"python benchmarks/clc.py KODAK CLIC VIDEO SCREEN --sets {options.sets}"
        f" --every {every} --clip {options.clip}",
        **origin(),
        "qualities": QUALITIES,
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


def rows_of(
    name: str, coded: Sequence[Picture], known: Sequence[Picture] | None
) -> list[dict[str, object]]:
    """A row for each kind of references; `known` makes the dictionary, None is the shipped one."""
    model = codec.load_model("clc", device="cpu")
    retrieved = model if known is None else with_dictionary(model, known)
    ways = {
        "none": backbone_of(model),
        "random": shuffled(retrieved),
        "retrieved": retrieved,
        "retrieved, nothing trained": untrained(retrieved),
        "retrieved, perturbed by 1 %": perturbed(retrieved),
        "oracle": with_dictionary(model, coded),
    }
    rows, anchor = [], None
    for way, own in ways.items():
        points, row = measured(own, coded)
        anchor = anchor or points
        rows.append(
            {
                "set": name,
                "pictures": len(coded),
                "references": way,
                "bd_rate": round(bd_rate(anchor, points), 2),
                **row,
                "curve": points,
            }
        )
    return rows


def measured(
    model: Model, pictures: Sequence[Picture]
) -> tuple[list[list[float]], dict[str, object]]:
    """Mean bits per pixel and PSNR at each quality; blocks with references, bits, milliseconds."""
    points, blocks, bits, total = [], [0, 0], 0.0, 0
    spent = {"encode_ms": 0.0, "decode_ms": 0.0}
    for quality in QUALITIES:
        found = []
        for picture in pictures:
            x = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None].float() / 255
            started = time.perf_counter()
            stream = model.compress(x, quality=quality)
            middle = time.perf_counter()
            x_hat = model.decompress(stream)
            spent["encode_ms"] += 1000 * (middle - started)
            spent["decode_ms"] += 1000 * (time.perf_counter() - middle)
            decoded = (x_hat[0].permute(1, 2, 0) * 255).round().byte().numpy()
            found.append([8 * len(stream) / x_hat[0, 0].numel(), psnr(picture, decoded)])
            total += 8 * len(stream)
            if isinstance(model.family, Clc):
                used, cost = told(model, stream)
                blocks = [a + b for a, b in zip(blocks, used, strict=True)]
                bits += cost
        points.append(np.mean(found, axis=0).tolist())
    count = len(QUALITIES) * len(pictures)
    row: dict[str, object] = {name: round(value / count, 1) for name, value in spent.items()}
    if isinstance(model.family, Clc):
        row["blocks_with_references"] = round(blocks[0] / blocks[1], 3)
        row["reference_bits_share"] = round(bits / total, 5)
        row["dictionary_bytes"] = len(model.family.dictionary.streams)
        row["dictionary_entries"] = len(model.family.dictionary)
    return points, row


def told(model: Model, stream: bytes) -> tuple[tuple[int, int], float]:
    """Of a stream's blocks, those with references and all; what telling them costs, in bits."""
    family = model.family
    assert isinstance(family, Clc)
    container = unpack(stream)
    used, count, bits = 0, 0, 0.0
    for number, payload in enumerate(container.tiles):
        decoder = Decoder(unpack_streams(payload, family.streams))
        symbols = family.traverse(decoder, None, geometry_of(container.header, number))
        r = symbols["r"].reshape(-1, WIDTH)
        counter = BitCounter()
        family.walk_references(counter.open("z", Method.RANGE), r, len(r))
        used, count, bits = used + int((r[:, 0] > 0).sum()), count + len(r), bits + counter.bits
    return (used, count), bits


# ---- dictionaries


def with_dictionary(model: Model, pictures: Sequence[Picture]) -> Model:
    """`model` with a dictionary of `pictures`, as the command would make it."""
    with tempfile.TemporaryDirectory() as folder:
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(Path(folder) / f"{number:04}.png")
        limit = max(picture.shape[0] * picture.shape[1] for picture in pictures)
        file = Path(folder) / "domain.dict"
        file.write_bytes(build(Path(folder), model, size=1024, name="domain", max_pixels=limit))
        return model.given(read_dictionary(file))


def backbone_of(model: Model) -> Model:
    """The `iscs` that `model` is built on."""
    assert isinstance(model.family, Clc)
    wanted = model.family.backbone
    entry = next(entry for entry in SHIPPED.manifest() if entry.sha256 == wanted)
    return Model(entry, SHIPPED.load(entry), family_by_name("iscs").id, model.device)


def shuffled(model: Model) -> Model:
    """`model` with the descriptors of its dictionary in another order."""
    family = copy.copy(model.family)
    assert isinstance(family, Clc)
    order = np.random.default_rng(1).permutation(len(family.dictionary))
    descriptors = family.dictionary.descriptors[order]
    family.dictionary = replace(family.dictionary, descriptors=descriptors)
    return replace(model, family=family)


def untrained(model: Model) -> Model:
    """`model` that only begins at references: no attention, z and levels as of `iscs`."""
    family = copy.copy(model.family)
    assert isinstance(family, Clc)
    family.reference = copy.deepcopy(family.reference)
    family.shift = np.zeros_like(family.shift)
    with torch.no_grad():
        family.reference.h_r.leave.weight.zero_()
        family.reference.h_r.leave.bias.zero_()
        for gate in family.reference.gates:
            gate.leave.weight.zero_()
            gate.leave.bias.fill_(-100.0)
    return replace(model, family=family)


def perturbed(model: Model) -> Model:
    """`model` with each latent of its entries changed, by 1 % on average."""
    family = copy.copy(model.family)
    assert isinstance(family, Clc)
    true = family._latents_of

    def latents(entry: int) -> torch.Tensor:
        found = true(entry)
        generator = torch.Generator().manual_seed(entry)
        return found * (1 + 0.01 * torch.randn(found.shape, generator=generator))

    family._latents_of = latents  # type: ignore[assignment]
    return replace(model, family=family)


# ---- pictures


def pictures_of(folder: Path) -> list[Picture]:
    """Those of a folder, by name."""
    return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]


def frames_of(clip: Path) -> list[Picture]:
    """All frames."""
    with av.open(str(clip)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def squares_of(folder: Path) -> list[Picture]:
    """All whole squares of 256x256 of the screenshots."""
    found = []
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".png", ".bmp")):
        picture = np.asarray(Image.open(path).convert("RGB"))
        for top in range(0, picture.shape[0] - 255, 256):
            for left in range(0, picture.shape[1] - 255, 256):
                found.append(picture[top : top + 256, left : left + 256])
    return found


if __name__ == "__main__":
    main()

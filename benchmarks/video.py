"""Rate and distortion of `nerv` on videos, beside x264 and x265 at the same rate in the same run.

    python benchmarks/video.py CLIP [CLIP ...] [--bpp 0.1] [--seconds 1100] [--effort 9]
        [--size WxH] [--model nerv] [--out FILE]
    python benchmarks/video.py CLIP --ablation [--bpp 0.1] [--seconds 100] [--out FILE]

Ours are real files, with all that is in them. Of the others only packets are counted, not their
container, at the lowest CRF whose rate is not above ours. Everybody is measured in RGB at 8 bits
against the frames that went in, frame by frame; the others get Y'CbCr 4:2:0, as is usual for them.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

import codec
from codec.api import DecodeOptions, open_video
from codec.benchmark.provenance import origin
from codec.io.video import Frame, Look, read_video, video_writer
from codec.metrics import ms_ssim, psnr
from codec.models.base import GroupGeometry, Search
from codec.models.nerv.layout import VARIANTS
from codec.progress import Stopwatch
from codec.training.export_nerv import freeze

PEERS = [(name, preset) for name in ("libx264", "libx265") for preset in ("medium", "veryslow")]
CRFS = range(18, 42)


def read(path: Path, size: tuple[int, int] | None) -> tuple[Look, list[Frame]]:
    """All frames of a file, made smaller by areas if a size is asked for."""
    clip = read_video(path, max_pixels=1 << 28)
    frames = list(clip.frames)
    if size is not None:
        x = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float()
        small = torch.nn.functional.interpolate(x, size[::-1], mode="area").round().byte()
        frames = list(small.permute(0, 2, 3, 1).contiguous().numpy())
    look = Look(frames[0].shape[1], frames[0].shape[0], clip.look.rate)
    return look, frames


def quality(frames: Sequence[Frame], decoded: Sequence[Frame]) -> dict[str, Any]:
    """PSNR and MS-SSIM: means over frames and, of PSNR, each."""
    if len(frames) != len(decoded):
        raise SystemExit(f"{len(frames)} frames went in, {len(decoded)} came out")
    pairs = list(zip(frames, decoded, strict=True))
    each = [psnr(a, b) for a, b in pairs]
    similar = [value for a, b in pairs if (value := ms_ssim(a, b)) is not None]
    return {
        "psnr": round(float(np.mean(each)), 3),
        "ms_ssim": round(float(np.mean(similar)), 5) if similar else None,
        "psnr_of_frames": [round(value, 2) for value in each],
    }


def ours(
    look: Look, frames: Sequence[Frame], options: argparse.Namespace, kept: Path
) -> dict[str, Any]:
    """A real file of ours, and how fast it decodes."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "clip.mkv"
        with video_writer(str(source), look) as write:
            for frame in frames:
                write(frame)
        started = time.perf_counter()
        stream = codec.encode(
            source,
            model=options.model,
            target_bpp=options.bpp,
            effort=options.effort,
            time_limit=options.seconds,
        )
    encoded = time.perf_counter() - started
    kept.write_bytes(stream)
    watch = Stopwatch()
    busy = time.process_time()
    decoded = list(open_video(stream, DecodeOptions(), watch=watch).frames)
    busy = time.process_time() - busy
    return {
        "codec": options.model,
        "bytes": len(stream),
        "bpp": round(8 * len(stream) / (look.width * look.height * len(frames)), 5),
        **quality(frames, decoded),
        "encode_seconds": round(encoded, 1),
        "decode_frames_per_second": round(len(frames) / watch.seconds["transform"], 1),
        "decode_frames_per_cpu_second": round(len(frames) / busy, 1),
        "entropy_decode_seconds": watch.seconds["entropy"],
    }


def peer(look: Look, frames: Sequence[Frame], name: str, preset: str, bpp: float) -> dict[str, Any]:
    """An encoder of FFmpeg's at the lowest CRF that takes no more bits per pixel."""
    low, high, best = CRFS.start - 1, CRFS.stop - 1, None
    while high - low > 1:
        middle = (low + high) // 2
        found = _packets(look, frames, name, preset, middle)
        if 8 * found[0] / (look.width * look.height * len(frames)) <= bpp:
            high, best = middle, found
        else:
            low = middle
    size, file, seconds = best or _packets(look, frames, name, preset, high)
    decoded = [
        frame.to_ndarray(format="rgb24") for frame in av.open(io.BytesIO(file)).decode(video=0)
    ]
    return {
        "codec": f"{name} {preset}",
        "crf": high,
        "bytes": size,
        "bpp": round(8 * size / (look.width * look.height * len(frames)), 5),
        **quality(frames, decoded),
        "encode_seconds": round(seconds, 1),
    }


def _packets(
    look: Look, frames: Sequence[Frame], name: str, preset: str, crf: int
) -> tuple[int, bytes, float]:
    """Bytes of all packets, the file, and seconds."""
    started, file, size = time.perf_counter(), io.BytesIO(), 0
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream(name, rate=look.rate)
        stream.options = {"preset": preset, "crf": str(crf)}
        if name == "libx265":
            stream.options |= {"x265-params": "log-level=none:pools=1"}
        else:
            stream.options |= {"threads": "1"}
        stream.width, stream.height, stream.pix_fmt = look.width, look.height, "yuv420p"
        pictures = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames]
        for picture in [*pictures, None]:
            for packet in stream.encode(picture):
                size += packet.size
                container.mux(packet)
    return size, file.getvalue(), time.perf_counter() - started


def ablation(frames: Sequence[Frame], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Each variant of the network after the same time on one group."""
    x = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
    geometry = GroupGeometry(x.shape[2], x.shape[3], len(x))
    bits = options.bpp * x[:, 0].numel()
    rows = []
    for variant in VARIANTS:
        family = freeze(variant)
        search = Search(effort=9, seconds=options.seconds)
        symbols = family.analyse_group(x, geometry, bits, search)
        drawn = family.synthesise_frames(symbols, geometry, range(len(x)))
        decoded = [
            frame[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy() for frame in drawn
        ]
        layout = family.layout_for(geometry, bits)
        row = {
            "variant": variant,
            "parameters": layout.parameters,
            "kmac_per_pixel": round(layout.macs / 1000, 2),
            **quality(frames, decoded),
        }
        print({key: value for key, value in row.items() if key != "psnr_of_frames"}, flush=True)
        rows.append(row)
    return rows


def _size(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    return width, height


def main() -> None:
    """Write one JSON file and print it as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--bpp", type=float, default=0.1)
    parser.add_argument("--seconds", type=float, default=1100)
    parser.add_argument("--effort", type=int, default=9)
    parser.add_argument("--size", type=_size)
    parser.add_argument("--model", default="nerv")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/video.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    said = [f"{key} {value}" for key, value in vars(options).items() if key not in ("clips", "out")]
    result: dict[str, Any] = {"options": said, **origin(), "clips": {}}
    for path in options.clips:
        look, frames = read(path, options.size)
        if options.ablation:
            result["clips"][path.name] = ablation(frames, options)
        else:
            row = ours(look, frames, options, options.out.with_suffix(f".{path.stem}.bin"))
            rows = [row]
            for name, preset in PEERS:
                rows.append(peer(look, frames, name, preset, row["bpp"]))
            result["clips"][path.name] = rows
            for row in rows:
                print(
                    path.name, {k: v for k, v in row.items() if k != "psnr_of_frames"}, flush=True
                )
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

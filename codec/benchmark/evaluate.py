"""One call that runs a benchmark and writes everything about it: rows, curves, plots, a report.

Knows the order of the steps; each of them is somebody else's. The folder it writes:

    report.html         curves, tables and before/after pictures in one file, needs no network
    results.json        where the figures come from, mean curves, Bjontegaard deltas
    curves/NAME.json    one codec in the schema of CompressAI, for its plotting tool
    images.csv          one row per image, codec and quality
    rd_psnr.png .svg    rate-distortion plots
    rd_ms_ssim.png .svg
    matched.csv         the rows of the report's pictures, at matched rates
    streams/ matched/   the compressed files themselves, and crops of their decoded images
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codec.benchmark import plots, provenance, report
from codec.benchmark.anchors import GROUPS, find
from codec.benchmark.peers import AbstractPeer, AnchorPeer, ModelPeer
from codec.benchmark.result import Result, finite
from codec.benchmark.rows import Row
from codec.benchmark.runner import Source, Task, measure, middle, read_rgb, survey
from codec.benchmark.summary import (
    METRICS,
    Curve,
    Metric,
    compare_all,
    curves_of,
    read_published,
)
from codec.errors import UsageError
from codec.io.files import write_whole
from codec.progress import Progress, unseen, within
from codec.weights import SHIPPED, Zoo

__all__ = ["MATCHED_BPP", "Options", "run"]

# The rates at which the report shows pictures, and of how many images.
MATCHED_BPP = (0.25, 0.75)
REPORT_IMAGES = 24

BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Options:
    """What to run, and how.

    Attributes:
        models: our models, as `family` or `family/variant`.
        anchors: names or groups of `codec.benchmark.anchors`.
        qualities: for our models, each 0..100; None for steps of ten.
        device: "cpu" or "cuda", for our models; anchors run on the CPU.
        jobs: processes, each on one thread (AVIF: two).
        published: JSON files of published points.
        command: how this run can be repeated, for the report.
        zoo: where the weights of our models are.
    """

    models: tuple[str, ...] = ("iscs",)
    anchors: tuple[str, ...] = tuple(GROUPS)
    qualities: tuple[int, ...] | None = None
    device: str = "cpu"
    jobs: int = 1
    published: tuple[Path, ...] = ()
    command: str = ""
    zoo: Zoo = SHIPPED

    def __post_init__(self) -> None:
        """Raise a UsageError for values that make no sense."""
        if not self.models and not self.anchors:
            raise UsageError("a benchmark wants at least one model or anchor")
        if self.jobs < 1:
            raise UsageError(f"jobs: want at least 1, got {self.jobs}")
        if self.device not in ("cpu", "cuda"):
            raise UsageError(f"device: want cpu or cuda, got {self.device}")
        if self.qualities is not None and not all(0 <= q <= 100 for q in self.qualities):
            raise UsageError(f"qualities: want numbers from 0 to 100, got {self.qualities}")


def run(folder: Path, out: Path, *, options: Options, progress: Progress = unseen) -> Result:
    """Run the benchmark over the images of `folder` and write the report into `out`.

    A run that was cut short is resumed by calling it again with the same `out`. The processes are
    spawned: a script that calls this needs the usual `if __name__ == "__main__":`.

    Raises:
        UsageError: an unknown codec, or matplotlib is missing.
        InputError: the folder holds no image, or published points cannot be read.
        ModelError: the weights of a model are missing.
    """
    plots.require()
    published = [curve for path in options.published for curve in read_published(path)]
    anchors, missing = find(options.anchors)
    peers: list[AbstractPeer] = [
        *(ModelPeer(name, device=options.device, zoo=options.zoo) for name in options.models),
        *(AnchorPeer(anchor) for anchor in anchors),
    ]
    if not peers:
        raise UsageError(f"none of the codecs can run here: {dict(missing)}")
    sources, skipped = survey(folder)
    out.mkdir(parents=True, exist_ok=True)

    tasks = [
        _task(source, peer, quality, out / "streams", options)
        for source in sources
        for peer in peers
        for quality in _qualities(peer, options)
    ]
    # The rows of the pictures are a sixth of the work of a usual run.
    rows, failures = measure(
        tasks, out / "images.csv", jobs=options.jobs, progress=within(progress, 0, 5 / 6)
    )
    shown = sources[:REPORT_IMAGES]
    matches = _match(shown, peers, rows, out / "matched", options)
    matched, more_failures = measure(
        list(dict.fromkeys(matches.values())),
        out / "matched.csv",
        jobs=options.jobs,
        progress=within(progress, 5 / 6, 1 / 6),
    )
    curves = (*curves_of(rows), *published)
    result = Result(
        head=_head(options, sources, peers),
        rows=tuple(rows),
        curves=curves,
        comparisons=compare_all(curves, generator=np.random.default_rng(BOOTSTRAP_SEED)),
        skipped=skipped,
        missing=missing,
        failures=(*failures, *more_failures),
        report=out / "report.html",
    )
    _write(result, out, title=folder.name, pictures=_pictures(shown, matches, matched))
    return result


def _qualities(peer: AbstractPeer, options: Options) -> tuple[float, ...]:
    if isinstance(peer, ModelPeer) and options.qualities is not None:
        return options.qualities
    return peer.qualities


def _task(
    source: Source, peer: AbstractPeer, quality: float, streams: Path, options: Options
) -> Task:
    return Task(
        source=source,
        codec=peer.name,
        quality=quality,
        made_by=peer.made_by,
        device=peer.device,
        suffix=peer.suffix,
        streams=streams,
        zoo=options.zoo,
    )


def _match(
    sources: Sequence[Source],
    peers: Sequence[AbstractPeer],
    rows: Sequence[Row],
    folder: Path,
    options: Options,
) -> dict[tuple[str, str, float], Task]:
    """For each (file, codec, bpp) the task whose file should come closest to that rate.

    The quality is interpolated over the log of the rate between what was measured on that image.
    """
    tasks = {}
    for source in sources:
        for peer in peers:
            known = [r for r in rows if (r.file, r.codec) == (source.path.name, peer.name)]
            known.sort(key=lambda row: row.bpp)
            for target in MATCHED_BPP if known else ():
                quality = float(
                    np.interp(
                        math.log(target),
                        [math.log(row.bpp) for row in known],
                        [row.quality for row in known],
                    )
                )
                quality = float(round(quality)) if peer.integral else round(quality, 3)
                task = _task(source, peer, quality, folder, options)
                task = dataclasses.replace(task, crops=folder)
                tasks[source.path.name, peer.name, target] = task
    return tasks


def _pictures(
    sources: Sequence[Source],
    matches: Mapping[tuple[str, str, float], Task],
    rows: Sequence[Row],
) -> list[report.Picture]:
    made = {(row.file, row.codec, row.quality): row for row in rows}
    pictures = []
    for source in sources:
        original = middle(read_rgb(source.path))
        pictures.append(report.original(source.path.name, original))
        for (file, codec, target), task in matches.items():
            row = made.get((file, codec, task.quality))
            if file == source.path.name and row is not None and task.crop is not None:
                pictures.append(report.decoded(row, target, read_rgb(task.crop)))
    return pictures


def _head(
    options: Options, sources: Sequence[Source], peers: Sequence[AbstractPeer]
) -> dict[str, Any]:
    images = [(source.path.name, source.sha256) for source in sources]
    weights = {name: options.zoo.find(name).sha256 for name in options.models}
    return {
        "command": options.command,
        "date": provenance.today(),
        "commit": provenance.commit(),
        "machine": provenance.machine(),
        "device": options.device,
        "jobs": options.jobs,
        "threads": {peer.name: peer.threads for peer in peers},
        "libraries": provenance.libraries(),
        "images": len(images),
        "image_list_sha256": provenance.image_list_sha256(images),
        "weights_sha256": weights,
    }


def _write(result: Result, out: Path, *, title: str, pictures: Sequence[report.Picture]) -> None:
    """Write everything that is made of the rows."""
    (out / "curves").mkdir(exist_ok=True)
    entries = [_compressai(curve) for curve in result.curves]
    for curve, entry in zip(result.curves, entries, strict=True):
        name = curve.name.replace("/", "-").replace(" ", "-")
        _write_json(out / "curves" / f"{name}.json", entry)
    _write_json(
        out / "results.json",
        {
            "head": result.head,
            "curves": entries,
            "comparisons": [dataclasses.asdict(item) for item in result.comparisons],
            "skipped": [dataclasses.asdict(item) for item in result.skipped],
            "missing": dict(result.missing),
            "failures": [dataclasses.asdict(item) for item in result.failures],
        },
    )
    svgs: dict[Metric, str] = {}
    for metric, name in zip(METRICS, ("rd_psnr", "rd_ms_ssim"), strict=True):
        for kind in ("png", "svg"):
            picture = plots.draw(result.curves, metric, title=title, kind=kind)
            write_whole(out / f"{name}.{kind}", picture)
        svgs[metric] = picture.decode()
    page = report.render(result, title=title, svgs=svgs, pictures=pictures)
    write_whole(result.report, page.encode())


def _compressai(curve: Curve) -> dict[str, Any]:
    """A curve in CompressAI's schema: lists of the same length by the name of the metric."""
    columns: dict[str, list[float | None]] = {
        "bpp": [point.bpp for point in curve.points],
        "psnr-rgb": [point.psnr_rgb for point in curve.points],
        "psnr-rgb-of-mean-mse": [point.psnr_of_mean_mse for point in curve.points],
        "psnr-y": [point.psnr_y for point in curve.points],
        "ms-ssim-rgb": [point.ms_ssim for point in curve.points],
        "ms-ssim-rgb-db": [point.ms_ssim_db for point in curve.points],
        "encoding_time": [point.encode_s for point in curve.points],
        "decoding_time": [point.decode_s for point in curve.points],
        "quality": [point.quality for point in curve.points],
    }
    known = {name: column for name, column in columns.items() if None not in column}
    description = f"{curve.description}. {curve.caveat}" if curve.caveat else curve.description
    return {"name": curve.label, "description": description, "results": known}


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(finite(content), indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(path, (text + "\n").encode())

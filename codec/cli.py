"""The command `codec`: arguments in, files and one exit code out. Knows no pixel.

Only the result goes to standard output; what is wrong goes to standard error as one line. Nothing
heavy is imported before a verb needs it.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, final

from codec import __version__, api
from codec.bitstream import Kind, peek, scan
from codec.errors import CodecError, UsageError
from codec.io.files import STANDARD, check_output, read_bytes, write_whole
from codec.progress import Bar, Stopwatch
from codec.weights import SHIPPED, Zoo

if TYPE_CHECKING:
    from codec.io.picture import Picture

__all__ = ["main"]

BUG, INTERRUPTED, BROKEN_PIPE, NO_MEMORY = 1, 130, 141, 6


def main(argv: Sequence[str] | None = None, *, zoo: Zoo = SHIPPED) -> int:
    """Run one command line, without the program's name; the exit code.

    `zoo` is where weights come from.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("codec: warning: %(message)s"))
    logger = logging.getLogger("codec")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries, about their own affairs
            return _run(argv, zoo)
    finally:
        logger.removeHandler(handler)


def _run(argv: Sequence[str] | None, zoo: Zoo) -> int:
    try:
        words = sys.argv[1:] if argv is None else list(argv)
        if words[:1] == ["bench"]:
            # Its own parser has the options: to state them here would import what they name.
            _bench(words[1:])
        else:
            arguments = _parser().parse_args(words, argparse.Namespace(zoo=zoo))
            arguments.run(arguments)
        sys.stdout.flush()
    except SystemExit as request:  # argparse, after --help and --version
        return int(request.code or 0)
    except CodecError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The interpreter flushes standard output once more when it ends; there it must succeed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except MemoryError:
        return _complain("not enough memory", NO_MEMORY)
    except OSError as error:  # of files that have a name it would be a CodecError by now
        return _complain(f"standard output: {error.strerror or error}", UsageError.exit_code)
    except Exception as error:  # a bug: one line for people, the rest for CODEC_DEBUG=1
        return _complain(f"internal error: {type(error).__name__}: {error}", BUG)
    return 0


def _complain(reason: str, code: int) -> int:
    if os.environ.get("CODEC_DEBUG") == "1":
        traceback.print_exc()
    print("codec:", " ".join(reason.split()), file=sys.stderr)
    return code


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Say in every error inside which file it is about."""
    try:
        yield
    except CodecError as error:
        label = "standard input or output" if name == STANDARD else name
        raise type(error)(f"{label}: {error}") from error


@contextmanager
def _bar() -> Iterator[Bar]:
    bar = Bar(sys.stderr)
    try:
        yield bar
    finally:
        bar.close()


# ---- verbs


def _encode(arguments: argparse.Namespace) -> None:
    _check_output(arguments)
    options = api.EncodeOptions(
        quality=arguments.quality,
        model=arguments.model or _model_for(arguments.input),
        target_bpp=arguments.target_bpp,
        target_size=arguments.target_size,
        target_psnr=arguments.target_psnr,
        effort=arguments.effort,
        time_limit=arguments.time_limit,
        key_every=arguments.key_every,
        take_interrupt=True,
        dictionary=arguments.dictionary,
        lanes=arguments.lanes,
        device=arguments.device,
        zoo=arguments.zoo,
    )
    watch = Stopwatch()
    medium = api.medium_of(options.model, options.zoo)
    if arguments.resume and medium != "video":
        raise UsageError("--resume is for videos")
    {"image": _encode_image, "video": _encode_video, "scene": _encode_scene}[medium](
        arguments, options, watch
    )


def _model_for(source: str) -> str:
    """The family that codes what is in files of such a name."""
    from codec.io.splats import is_splats

    return "gauss" if is_splats(source) else "iscs"


def _encode_image(
    arguments: argparse.Namespace, options: api.EncodeOptions, watch: Stopwatch
) -> None:
    with _about(arguments.input):
        from codec.io.reading import read_picture

        picture = read_picture(read_bytes(arguments.input), max_pixels=arguments.max_pixels)
        with watch.part("load"):
            _set_threads(arguments.threads)
        with _bar() as bar:
            encoded = api.encode_picture(picture, options, watch=watch, progress=bar)
    with _about(arguments.output):
        write_whole(arguments.output, encoded.stream)
    if arguments.json:
        size = len(encoded.stream)
        _print_json(
            {
                "bytes": size,
                "bpp": 8 * size / (picture.width * picture.height),
                "width": picture.width,
                "height": picture.height,
                "model": encoded.entry.name,
                "model_id": encoded.entry.model_id.hex(),
                "quality": encoded.quality,
                "seconds": watch.seconds,
            }
        )


def _encode_video(
    arguments: argparse.Namespace, options: api.EncodeOptions, watch: Stopwatch
) -> None:
    with _about(arguments.input):
        with watch.part("load"):
            from codec.io.video import read_video
            from codec.journal import Journal

            clip = read_video(arguments.input, max_pixels=arguments.max_pixels)
            _set_threads(arguments.threads)
        output = Path(arguments.output)
        journal = None
        if arguments.output != STANDARD:
            path = output.with_name(f".{output.name}.groups")
            journal = Journal(path, resume=arguments.resume)
        with _bar() as bar:
            encoded = api.encode_clip(clip, options, watch=watch, progress=bar, journal=journal)
    with _about(arguments.output):
        write_whole(arguments.output, encoded.stream)
    if journal is not None:
        journal.close()
    if arguments.json:
        size = len(encoded.stream)
        _print_json(
            {
                "bytes": size,
                "bpp": 8 * size / (clip.look.width * clip.look.height * encoded.frames),
                "width": clip.look.width,
                "height": clip.look.height,
                "frames": encoded.frames,
                "model": encoded.entry.name,
                "model_id": encoded.entry.model_id.hex(),
                "quality": encoded.quality,
                "seconds": watch.seconds,
            }
        )


def _encode_scene(
    arguments: argparse.Namespace, options: api.EncodeOptions, watch: Stopwatch
) -> None:
    with _about(arguments.input):
        with watch.part("load"):
            _set_threads(arguments.threads)
        with _bar() as bar:
            encoded = api.encode_source(arguments.input, options, watch=watch, progress=bar)
    with _about(arguments.output):
        write_whole(arguments.output, encoded.stream)
    if arguments.json:
        _print_json(
            {
                "bytes": len(encoded.stream),
                "bits_per_gaussian": api.bits_each(
                    encoded.stream, encoded.frames, encoded.gaussians
                ),
                "frames": encoded.frames,
                "gaussians": encoded.gaussians,
                "model": encoded.entry.name,
                "model_id": encoded.entry.model_id.hex(),
                "quality": options.quality,
                "seconds": watch.seconds,
            }
        )


def _decode(arguments: argparse.Namespace) -> None:
    if not arguments.output.endswith("/"):  # a folder for the frames of a video
        _check_output(arguments)
    with _about(arguments.input):
        stream = read_bytes(arguments.input)
        kind = peek(stream).kind
    options = api.DecodeOptions(
        device=arguments.device,
        layers=arguments.layers,
        region=arguments.region,
        frames=arguments.frames,
        allow_partial=arguments.allow_partial,
        dictionary=arguments.dictionary,
        max_pixels=arguments.max_pixels,
        zoo=arguments.zoo,
    )
    watch = Stopwatch()
    with watch.part("load"):
        _set_threads(arguments.threads)
    {Kind.IMAGE: _decode_image, Kind.VIDEO: _decode_video, Kind.SCENE: _decode_scene}[kind](
        arguments, stream, options, watch
    )


def _decode_image(
    arguments: argparse.Namespace, stream: bytes, options: api.DecodeOptions, watch: Stopwatch
) -> None:
    with _about(arguments.output):
        from codec.io.writing import format_of, write_picture

        name = format_of(arguments.output)
    with _about(arguments.input), _bar() as bar:
        decoded = api.decode_stream(stream, options, watch=watch, progress=bar)
    with _about(arguments.output):
        write_whole(arguments.output, write_picture(decoded.picture, name))
    if arguments.json:
        _print_json(
            {
                "width": decoded.picture.width,
                "height": decoded.picture.height,
                "seconds": watch.seconds,
                "symbols_sha256": decoded.symbols_sha256,
            }
        )


def _decode_video(
    arguments: argparse.Namespace, stream: bytes, options: api.DecodeOptions, watch: Stopwatch
) -> None:
    from codec.io.video import check_target, video_writer

    with _about(arguments.output):
        check_target(arguments.output, force=arguments.force)
    with _about(arguments.input), _bar() as bar:
        opened = api.open_video(stream, options, watch=watch, progress=bar)
        with video_writer(arguments.output, opened.look, opened.audio) as write:
            for frame in opened.frames:
                write(frame)
    if arguments.json:
        _print_json(
            {
                "width": opened.look.width,
                "height": opened.look.height,
                "frames": len(opened.interval),
                "seconds": watch.seconds,
                "symbols_sha256": opened.digest.hexdigest(),
            }
        )


def _decode_scene(
    arguments: argparse.Namespace, stream: bytes, options: api.DecodeOptions, watch: Stopwatch
) -> None:
    from codec.io.splats import targets_of, write_splats

    with _about(arguments.input), _bar() as bar:
        opened = api.open_scene(stream, options, watch=watch, progress=bar)
        with _about(arguments.output):
            paths = targets_of(arguments.output, opened.interval, force=arguments.force)
        for path in paths:
            write_splats(path, next(opened.frames))
    if arguments.json:
        _print_json(
            {
                "frames": len(opened.interval),
                "gaussians": opened.gaussians,
                "seconds": watch.seconds,
                "symbols_sha256": opened.digest.hexdigest(),
            }
        )


def _render(arguments: argparse.Namespace) -> None:
    from codec.cameras import parse_camera
    from codec.engine import device_of
    from codec.io.picture import Picture
    from codec.io.writing import format_of, write_picture
    from codec.viewing import frame_of, view

    _check_output(arguments)
    device = device_of(arguments.device)
    with _about(arguments.output):
        name = format_of(arguments.output)
    with _about(arguments.camera):
        camera = parse_camera(read_bytes(arguments.camera))
    with _about(arguments.input):
        gaussians = frame_of(arguments.input, arguments.frame, arguments.zoo)
        levels = view(gaussians, camera, device=device, max_pixels=arguments.max_pixels)
    with _about(arguments.output):
        write_whole(arguments.output, write_picture(Picture.from_array(levels), name))
    if arguments.json:
        _print_json({"width": camera.width, "height": camera.height, "gaussians": len(gaussians)})


def _info(arguments: argparse.Namespace) -> None:
    with _about(arguments.input):
        found = api.info(read_bytes(arguments.input), zoo=arguments.zoo)
    if arguments.json:
        _print_json(found)
        return
    for name, value in found.items():
        if name not in ("chunks", "layers"):
            print(f"{name:17} {value:.4f}" if isinstance(value, float) else f"{name:17} {value}")
    for chunk in found["chunks"]:
        state = "" if chunk["crc_ok"] else "  DAMAGED"
        print(f"{chunk['type']:17} {chunk['length']} bytes at {chunk['offset']}{state}")
    for layer in found["layers"]:
        print(f"layer {layer['layer']:<11} {layer['bytes']} bytes")


def _verify(arguments: argparse.Namespace) -> None:
    with _about(arguments.input):
        found = scan(read_bytes(arguments.input))
        for chunk in found.chunks:
            if not chunk.crc_ok:
                print(f"{chunk.name} at {chunk.offset}: damaged")
        if found.error is not None:
            raise found.error


def _compare(arguments: argparse.Namespace) -> None:
    from codec import metrics

    reference, test = (
        _read_colour(name, arguments.max_pixels) for name in (arguments.reference, arguments.test)
    )
    with _about(arguments.test):
        if (reference.height, reference.width) != (test.height, test.width):
            raise UsageError(
                f"want {reference.width}x{reference.height} pixels as the reference has, "
                f"got {test.width}x{test.height}"
            )
    a, b = reference.alike(test)
    similarity = metrics.ms_ssim(a, b)
    values = {
        "psnr": metrics.psnr(a, b),
        "ms_ssim": similarity,
        "ms_ssim_db": metrics.ms_ssim_db(similarity),
        "max_abs_diff": int(metrics.max_abs_diff(a, b)),
    }
    if arguments.json:  # JSON has no infinity: null is "no difference", and "too small to say"
        _print_json(
            {k: v if v is not None and math.isfinite(v) else None for k, v in values.items()}
        )
        return
    for name, value in values.items():
        print(f"{name:15} {'-' if value is None else f'{value:.6g}'}")


def _read_colour(name: str, max_pixels: int) -> Picture:
    with _about(name):
        from codec.io.reading import read_picture

        return read_picture(read_bytes(name), max_pixels=max_pixels)


def _models(arguments: argparse.Namespace) -> None:
    entries = arguments.zoo.manifest()
    if arguments.json:
        rows = [
            {
                "name": entry.name,
                "family": entry.family,
                "model_id": entry.model_id.hex(),
                "parameters": entry.parameters,
                "decode_kmac_per_pixel": entry.decode_kmac_per_pixel,
                "default": entry.default,
            }
            for entry in entries
        ]
        _print_json({"models": rows})
        return
    newest = {entry.name: entry for entry in entries}
    for entry in entries:
        role = f", the default of {entry.family}" if entry.default else ""
        if entry is not newest[entry.name]:
            role = ", for streams made with it"
        print(
            f"{entry.name:16} {entry.model_id.hex()}  {entry.parameters / 1e6:.1f} M parameters, "
            f"{entry.decode_kmac_per_pixel:g} kMAC to decode a pixel{role}"
        )


def _build_dictionary(arguments: argparse.Namespace) -> None:
    from codec import dictionaries

    _check_output(arguments)
    with _about(arguments.folder), _bar() as bar:
        model = api.load_model(arguments.model, zoo=arguments.zoo)
        content = dictionaries.build(
            Path(arguments.folder), model, size=arguments.size, max_pixels=arguments.max_pixels,
            name=Path(arguments.output).stem, progress=bar,
        )  # fmt: skip
    with _about(arguments.output):
        write_whole(arguments.output, content)


def _import_compressai(arguments: argparse.Namespace) -> None:
    from codec import importing

    _check_output(arguments)
    with _about(arguments.checkpoint):
        frozen = importing.read_checkpoint(arguments.checkpoint, arguments.arch)
    with _about(arguments.output):
        recipe = f"CompressAI, {arguments.arch}, {Path(arguments.checkpoint).name}"
        importing.add_weights(frozen, Path(arguments.output), recipe)


def _train(arguments: argparse.Namespace) -> None:
    from codec import training

    logging.basicConfig(level=logging.INFO, format="%(message)s")  # a line for every report
    with _about(str(arguments.recipe)):
        training.run(
            arguments.recipe,
            resume=arguments.resume,
            time_limit=arguments.time_limit,
            out=arguments.out,
        )


def _bench(argv: Sequence[str]) -> None:
    from codec.benchmark import cli

    parser = _Parser(prog="codec bench", description="Rate and distortion over a folder of images.")
    cli.add_arguments(parser)
    cli.run(parser.parse_args(argv))


# ---- what verbs share


def _check_output(arguments: argparse.Namespace) -> None:
    with _about(arguments.output):
        check_output(arguments.output, force=arguments.force)
        if arguments.output == STANDARD and arguments.json:
            raise UsageError("--json and the result cannot both go to standard output")


def _set_threads(count: int | None) -> None:
    if count is not None:
        import torch

        torch.set_num_threads(count)


def _print_json(value: object) -> None:
    print(json.dumps(value, allow_nan=False))


# ---- arguments


@final
class _Parser(argparse.ArgumentParser):
    """Argparse whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` explains")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="codec",
        description="Learned compression: images, videos and scenes to small files and back.",
    )
    parser.add_argument("--version", action="version", version=f"codec {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    verb = verbs.add_parser("encode", help="compress an image, a video or a scene of Gaussians")
    verb.add_argument(
        "input", metavar="INPUT",
        help="file, of a scene also a folder or pattern (a/%%04d.ply), or a folder of videos and "
        "cameras; - is standard input",
    )  # fmt: skip
    verb.add_argument("output", metavar="OUTPUT", help="stream; - is standard output")
    verb.add_argument(
        "-m", "--model", metavar="FAMILY[/VARIANT]", help="iscs, or gauss for .ply, .spz, .splat"
    )
    rate = verb.add_mutually_exclusive_group()
    rate.add_argument("-q", "--quality", type=int, default=60, metavar="0..100")
    rate.add_argument(
        "--target-bpp", type=_positive, metavar="X", help="at most so many bits a pixel"
    )
    rate.add_argument("--target-size", type=_count, metavar="BYTES", help="at most so many bytes")
    rate.add_argument("--target-psnr", type=_positive, metavar="DB", help="at least so many dB")
    verb.add_argument("--effort", type=int, default=0, metavar="0..9", help="how hard to search")
    verb.add_argument(
        "--time-limit", type=_positive, metavar="SECONDS", help="that the search may take"
    )
    verb.add_argument(
        "--key-every", type=_count, metavar="G", help="frames of a scene from which to start, 30"
    )
    verb.add_argument(
        "--resume", action="store_true", help="go on with a video where an encode was killed"
    )
    verb.add_argument(
        "--lanes", type=_count, metavar="N", help="of the entropy coder, for a GPU; see docs/gpu.md"
    )
    _add_common(verb)
    verb.set_defaults(run=_encode)

    verb = verbs.add_parser(
        "decode", help="make an image, a video or files of Gaussians from a stream"
    )
    verb.add_argument("input", metavar="INPUT", help="stream; - is standard input")
    verb.add_argument(
        "output", metavar="OUTPUT",
        help="file, by extension, of a scene a pattern (a/%%04d.ply), for frames of a video a "
        "folder/; - is PNG or Y4M to stdout",
    )  # fmt: skip
    verb.add_argument(
        "--layers", type=_whole, metavar="K", help="only the core and the first K layers; see info"
    )
    verb.add_argument(
        "--allow-partial",
        action="store_true",
        help="decode what is whole of a stream that is cut, or of a damaged scene",
    )
    verb.add_argument("--frames", type=_interval, metavar="A:B", help="only frames A to B - 1")
    verb.add_argument("--region", type=_region, metavar="X,Y,W,H", help="only this part, in pixels")
    _add_common(verb)
    verb.set_defaults(run=_decode)

    verb = verbs.add_parser("render", help="make a picture of a scene of Gaussians")
    verb.add_argument(
        "input", metavar="INPUT",
        help="stream; or .ply, .spz or .splat file, folder or pattern (a/%%04d.ply)",
    )  # fmt: skip
    verb.add_argument("--camera", required=True, metavar="FILE.json", help="see docs/scenes.md")
    verb.add_argument(
        "--out", dest="output", required=True, metavar="FILE", help="image; - is PNG to stdout"
    )
    verb.add_argument("--frame", type=_whole, default=0, metavar="N", help="the first is 0")
    verb.add_argument("--device", default="cpu", metavar="auto|cpu|cuda", help="that draws")
    verb.add_argument("--force", action="store_true", help="replace the output if it exists")
    _add_zoo(verb)
    _add_limit(verb)
    _add_json(verb)
    verb.set_defaults(run=_render)

    verb = verbs.add_parser("info", help="what a stream holds")
    verb.add_argument("input", metavar="INPUT")
    _add_zoo(verb)
    _add_json(verb)
    verb.set_defaults(run=_info)

    verb = verbs.add_parser("verify", help="check every byte of a stream without decoding it")
    verb.add_argument("input", metavar="INPUT")
    verb.set_defaults(run=_verify)

    verb = verbs.add_parser("compare", help="how far the colour of two images is apart")
    verb.add_argument("reference", metavar="REFERENCE")
    verb.add_argument("test", metavar="TEST")
    _add_limit(verb)
    _add_json(verb)
    verb.set_defaults(run=_compare)

    verb = verbs.add_parser("models", help="the weights that are installed")
    _add_zoo(verb)
    _add_json(verb)
    verb.set_defaults(run=_models)

    kind = verbs.add_parser("dictionary", help="pictures that encoder and decoder both have")
    verb = kind.add_subparsers(metavar="VERB", required=True).add_parser(
        "build", help="from a folder of pictures, for encode and decode --dictionary"
    )
    verb.add_argument("folder", metavar="DIR", help="pictures like those that will be coded")
    verb.add_argument("--out", dest="output", required=True, metavar="FILE")
    verb.add_argument("-m", "--model", default="clc", metavar="FAMILY[/VARIANT]")
    verb.add_argument(
        "--size", type=_count, default=1024, metavar="N", help="entries of 256x256 at most, to 4096"
    )
    verb.add_argument("--force", action="store_true", help="replace the output if it exists")
    _add_zoo(verb)
    _add_limit(verb)
    verb.set_defaults(run=_build_dictionary, json=False)

    verb = verbs.add_parser("import-compressai", help="weights of CompressAI to weights of ours")
    verb.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="file of weights, or zoo:1 to zoo:8, which CompressAI publishes",
    )
    verb.add_argument("--arch", required=True, metavar="ARCH", help="mbt2018-mean, for example")
    verb.add_argument(
        "--out", dest="output", type=_weights, required=True, metavar="FILE.safetensors",
        help="listed in a manifest.json beside it; its folder is for --zoo",
    )  # fmt: skip
    verb.add_argument("--force", action="store_true", help="replace the output if it exists")
    verb.set_defaults(run=_import_compressai)

    verbs.add_parser("bench", help="rate and distortion over a folder of images")

    verb = verbs.add_parser("train", help="train a model, in pieces if need be")
    verb.add_argument("recipe", type=Path, metavar="RECIPE")
    verb.add_argument("--resume", action="store_true", help="go on where the last piece stopped")
    verb.add_argument("--time-limit", type=_positive, metavar="MINUTES")
    verb.add_argument("--out", type=Path, metavar="DIR")
    verb.set_defaults(run=_train)
    return parser


def _add_common(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--dictionary", metavar="FILE", help="of pictures that both sides have")
    verb.add_argument("--device", default="auto", metavar="auto|cpu|cuda")
    verb.add_argument("--threads", type=_count, metavar="N", help="of the transforms, on the CPU")
    verb.add_argument("--force", action="store_true", help="replace the output if it exists")
    _add_zoo(verb)
    _add_limit(verb)
    _add_json(verb)


def _add_zoo(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--zoo", type=_zoo, default=argparse.SUPPRESS, metavar="DIR",
        help="folder of weights, instead of those that come with the package",
    )  # fmt: skip


def _add_limit(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--max-pixels", type=_count, default=api.MAX_PIXELS, metavar="N")


def _add_json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="print one JSON object")


def _zoo(text: str) -> Zoo:
    return Zoo(Path(text))


def _weights(text: str) -> str:
    if Path(text).suffix != ".safetensors":
        raise argparse.ArgumentTypeError(f"want a name that ends in .safetensors, got {text}")
    return text


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"want a number above 0, got {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"want a whole number above 0, got {text}")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"want a whole number, got {text}")
    return value


def _interval(text: str) -> tuple[int, int]:
    first, _, end = text.partition(":")
    return int(first), int(end)


def _region(text: str) -> tuple[int, ...]:
    values = tuple(int(part) for part in text.split(","))
    if len(values) != 4:
        raise argparse.ArgumentTypeError(f"want X,Y,W,H, got {text}")
    return values

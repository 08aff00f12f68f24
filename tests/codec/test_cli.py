import io
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from codec import cli
from codec.bitstream import unpack
from codec.errors import LimitError
from codec.weights import Zoo
from tests.codec.images import deep_png, file_of, gradient, image_of_mode, odd_files
from tests.codec.toy import make_zoo


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(file_of(image_of_mode("RGB", 40, 30)))
    return path


@pytest.fixture
def stream(png, run, tmp_path):
    path = tmp_path / "image.bin"
    assert run("encode", png, path, "-m", "toy")[0] == 0
    return path


def one_line(err):
    return err.startswith("codec: ") and err.count("\n") == 1 and err.endswith("\n")


def names_in(folder):
    return {path.name for path in folder.iterdir()}


# ---- what they do


def test_encode_and_decode_are_silent_and_right(png, run, tmp_path):
    stream, back = tmp_path / "a.bin", tmp_path / "a.png"
    assert run("encode", png, stream, "-m", "toy", "-q", 100) == (0, "", "")
    assert run("decode", stream, back) == (0, "", "")
    with Image.open(png) as wanted, Image.open(back) as got:
        assert got.tobytes() == wanted.tobytes()


def test_encode_reports_its_result_as_one_object(png, run, tmp_path):
    stream = tmp_path / "a.bin"
    code, out, err = run("encode", png, stream, "-m", "toy/blurry", "-q", 30, "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert set(report) == {
        "bytes", "bpp", "width", "height", "model", "model_id", "quality", "seconds"
    }  # fmt: skip
    assert set(report["seconds"]) == {"load", "transform", "entropy", "total"}
    assert report["bytes"] == stream.stat().st_size
    assert report["bpp"] == 8 * report["bytes"] / (40 * 30)
    assert (report["model"], report["quality"]) == ("toy/blurry", 30)
    assert report["model_id"] == unpack(stream.read_bytes()).header.model_id.hex()


def test_decode_reports_its_result_as_one_object(stream, run, tmp_path):
    code, out, err = run("decode", stream, tmp_path / "a.png", "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert set(report) == {"width", "height", "seconds", "symbols_sha256"}
    assert (report["width"], report["height"]) == (40, 30)
    assert len(bytes.fromhex(report["symbols_sha256"])) == 32


def test_threads_change_no_symbol(stream, run, tmp_path):
    import torch

    before = torch.get_num_threads()
    reports = [
        json.loads(run("decode", stream, tmp_path / f"{n}.png", "--json", "--threads", n)[1])
        for n in (1, 2)
    ]
    torch.set_num_threads(before)
    assert reports[0]["symbols_sha256"] == reports[1]["symbols_sha256"]


def test_a_target_is_kept(png, run, tmp_path):
    path = tmp_path / "a.bin"
    assert run("encode", png, path, "-m", "toy", "--target-size", 3000)[0] == 0
    assert path.stat().st_size <= 3000
    assert run("encode", png, path, "-m", "toy", "--target-bpp", 15, "--force")[0] == 0
    assert path.stat().st_size * 8 <= 15 * 40 * 30
    assert run("encode", png, path, "-m", "toy", "--target-psnr", 40, "--force")[0] == 0
    assert run("decode", path, tmp_path / "a.png")[0] == 0
    assert json.loads(run("compare", png, tmp_path / "a.png", "--json")[1])["psnr"] >= 40


def test_a_region_is_written(stream, run, tmp_path):
    path = tmp_path / "a.png"
    code, out, _ = run("decode", stream, path, "--region", "3,4,10,5", "--json")
    assert code == 0
    assert (json.loads(out)["width"], json.loads(out)["height"]) == (10, 5)
    with Image.open(path) as image:
        assert image.size == (10, 5)


def test_sixteen_bits_go_through(run, tmp_path):
    source, stream, back = (tmp_path / name for name in ("a.png", "a.bin", "b.png"))
    source.write_bytes(deep_png(gradient(9, 11, 4, np.uint16)))
    assert run("encode", source, stream, "-m", "toy")[0] == 0
    assert run("decode", stream, back)[0] == 0
    assert back.read_bytes()[24:26] == bytes([16, 6])  # bit depth and colour type
    assert run("compare", source, back)[0] == 0


def test_info_says_the_same_to_people_and_to_programs(stream, run):
    code, out, err = run("info", stream, "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert (report["width"], report["frames"], report["format_version"]) == (40, 1, 1)
    text = run("info", stream)[1]
    assert report["model_id"] in text
    assert "tile" in text


def test_verify_is_silent_about_a_sound_stream_and_names_what_is_damaged(stream, run):
    assert run("verify", stream) == (0, "", "")
    data = bytearray(stream.read_bytes())
    data[-10] ^= 1
    stream.write_bytes(data)
    code, out, err = run("verify", stream)
    assert code == 4
    assert "tile" in out
    assert one_line(err)


def test_compare_measures_the_colour(png, run, tmp_path):
    image = Image.open(png)
    shifted = image.point(lambda level: min(level + 2, 255))
    other = tmp_path / "other.png"
    shifted.save(other)
    code, out, _ = run("compare", png, other, "--json")
    report = json.loads(out)
    assert code == 0
    assert set(report) == {"psnr", "ms_ssim", "ms_ssim_db", "max_abs_diff"}
    assert report["max_abs_diff"] == 2
    assert report["psnr"] == pytest.approx(42.11, abs=0.2)
    assert report["ms_ssim"] is None  # smaller than its windows
    image.close()


def test_compare_of_equal_images_is_still_json(png, run):
    report = json.loads(run("compare", png, png, "--json")[1])
    assert (report["psnr"], report["max_abs_diff"]) == (None, 0)
    assert "inf" in run("compare", png, png)[1]


def test_compare_refuses_images_of_unlike_size(png, run, tmp_path):
    other = tmp_path / "other.png"
    other.write_bytes(file_of(image_of_mode("RGB", 41, 30)))
    code, _, err = run("compare", png, other)
    assert code == 2
    assert "40x30" in err
    assert one_line(err)


def test_models_are_listed(run):
    names = [row["name"] for row in json.loads(run("models", "--json")[1])["models"]]
    assert names == ["toy/sharp", "toy/blurry"]
    assert "toy/blurry" in run("models")[1]


def test_weights_that_others_replaced_are_listed_for_what_they_are(tmp_path, capsys):
    entry = {"family": "iscs", "parameters": 1, "decode_kmac_per_pixel": 1.0, "recipe": "none"}
    names = ["iscs/a", "iscs/b", "iscs/a"]
    rows = [{**entry, "name": n, "file": "f", "sha256": f"{k:064x}"} for k, n in enumerate(names)]
    (tmp_path / "manifest.json").write_text(json.dumps(rows))
    assert cli.main(["models"], zoo=Zoo(tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["for streams" in line for line in lines] == [True, False, False]


# ---- what they refuse


def test_an_existing_output_is_refused_before_any_work(stream, run, tmp_path):
    before = stream.read_bytes()
    missing = tmp_path / "missing.png"  # it would be an error of its own, if it were looked at
    for words in (("encode", missing, stream), ("decode", missing, stream)):
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        assert "--force" in err
        assert one_line(err)
    assert stream.read_bytes() == before


def test_force_replaces_an_output_and_keeps_its_permissions(png, stream, run):
    stream.chmod(0o640)
    assert run("encode", png, stream, "-m", "toy", "-q", 5, "--force")[0] == 0
    assert unpack(stream.read_bytes()).header.quality == 5
    assert stream.stat().st_mode & 0o777 == 0o640


def test_a_failure_leaves_the_old_output_and_no_other_file(png, stream, run, tmp_path):
    before = stream.read_bytes()
    bad = tmp_path / "bad.png"
    bad.write_bytes(png.read_bytes()[:200])
    assert run("encode", bad, stream, "--force", "-m", "toy")[0] == 3
    assert stream.read_bytes() == before
    assert names_in(tmp_path) == {"bad.png", "image.bin", "image.png"}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["encode", "{png}", "{out}", "-q", "101"], 2),
        (["encode", "{png}", "{out}", "-q", "x"], 2),
        (["encode", "{png}", "{out}", "--resume"], 2),
        (["encode", "{png}", "{out}", "-q", "5", "--target-size", "9"], 2),
        (["encode", "{png}", "{out}", "--target-psnr", "-1"], 2),
        (["encode", "{png}", "{out}", "--target-bpp", "nan"], 2),
        (["encode", "{png}", "{out}", "-m", "nothing"], 2),
        (["encode", "{png}", "{out}", "--device", "abacus"], 2),
        (["encode", "{png}", "{out}", "--threads", "0"], 2),
        (["encode", "{png}", "{out}", "--effort", "11"], 2),
        (["encode", "{png}", "{out}", "--max-pixels", "10"], 6),
        (["encode", "{png}", "{folder}"], 2),
        (["encode", "{png}", "{folder}/no/folder.bin"], 2),
        (["encode", "{png}", "-", "--json"], 2),
        (["encode", "{png}"], 2),
        (["encode", "{folder}", "{out}"], 3),
        (["encode", "{stream}", "{out}"], 3),
        (["encode", "{missing}", "{out}"], 3),
        (["decode", "{png}", "{out}.png"], 4),
        (["decode", "{stream}", "{out}.xyz"], 2),
        (["decode", "{stream}", "{out}.png", "--layers", "2"], 2),
        (["decode", "{stream}", "{out}.png", "--layers", "-1"], 2),
        (["decode", "{stream}", "{out}.png", "--region", "0,0,41,1"], 2),
        (["decode", "{stream}", "{out}.png", "--region", "0,0"], 2),
        (["decode", "{stream}", "{out}.png", "--max-pixels", "10"], 6),
        (["decode", "{missing}", "{out}.png"], 3),
        (["info", "{png}"], 4),
        (["info", "{missing}"], 3),
        (["verify", "{png}"], 4),
        (["compare", "{png}", "{stream}"], 3),
        (["train", "{missing}"], 3),
        (["bench", "--nothing"], 2),
        (["nothing"], 2),
        ([], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_misuse_has_its_exit_code_and_one_line(words, code, png, stream, run, tmp_path):
    names = {
        "png": png, "stream": stream, "folder": tmp_path, "out": tmp_path / "out",
        "missing": tmp_path / "missing",
    }  # fmt: skip
    found, out, err = run(
        *(word.format(**names) for word in words),
        *(["-m", "toy"] if words[:1] == ["encode"] and "-m" not in words else []),
    )
    assert (found, out) == (code, "")
    assert one_line(err), err
    assert "Traceback" not in err


def test_a_message_names_the_file(run, tmp_path):
    assert f"{tmp_path / 'missing'}: " in run("info", tmp_path / "missing")[2]


def test_a_stream_of_weights_that_are_not_here_is_refused(stream, tmp_path, capsys):
    code = cli.main(["decode", str(stream), str(tmp_path / "a.png")])
    assert code in (4, 5)  # the shipped registry does not know the toy at all
    assert one_line(capsys.readouterr().err)


def test_a_bug_is_one_line_and_code_1_and_a_traceback_only_on_request(stream, capsys, monkeypatch):
    class Broken:
        def manifest(self):
            raise LookupError("two\nlines")

    assert cli.main(["models"], zoo=Broken()) == 1
    err = capsys.readouterr().err
    assert one_line(err)
    assert "LookupError: two lines" in err
    monkeypatch.setenv("CODEC_DEBUG", "1")
    assert cli.main(["models"], zoo=Broken()) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (MemoryError(), 6), (LimitError("big"), 6)]
)
def test_an_interrupt_and_a_full_memory_have_their_codes(error, code, capsys):
    class Broken:
        def manifest(self):
            raise error

    assert cli.main(["models"], zoo=Broken()) == code
    assert one_line(capsys.readouterr().err)


def test_a_warning_is_one_line(run, tmp_path):
    frames = [image_of_mode("RGB"), Image.new("RGB", (23, 19))]
    source = tmp_path / "a.png"
    source.write_bytes(file_of(frames[0], save_all=True, append_images=frames[1:]))
    code, out, err = run("encode", source, tmp_path / "a.bin", "-m", "toy")
    assert (code, out) == (0, "")
    assert err.startswith("codec: warning: ")
    assert one_line(err)


# ---- odd files


# The largest take most of a minute here; that they are read is tested beside the reader.
ODD = {name: data for name, data in odd_files().items() if len(data) < 500_000}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_goes_through_at_its_size_and_mode_or_is_refused(name, run, tmp_path):
    from codec.io.reading import read_picture

    source, stream = tmp_path / "source", tmp_path / "a.bin"
    source.write_bytes(ODD[name])
    code, out, err = run("encode", source, stream, "-m", "toy", "-q", 20)
    assert out == ""
    assert code in (0, 3)
    assert err == "" or one_line(err)
    if code == 3:
        assert not stream.exists()
        return
    wanted = read_picture(ODD[name], max_pixels=1 << 28)
    back = tmp_path / ("a.tif" if wanted.mode in ("CMYK", "PA", "YCbCr") else "a.png")
    assert run("decode", stream, back)[::2] == (0, "")
    got = read_picture(back.read_bytes(), max_pixels=1 << 28)
    assert (got.mode, got.width, got.height) == (wanted.mode, wanted.width, wanted.height)
    assert (got.bit_depth, got.key) == (wanted.bit_depth, wanted.key)


# ---- as processes


def command(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "codec", *map(str, words)],
        capture_output=True,
        check=False,
        **options,
    )


@pytest.mark.parametrize(
    "words", [["--help"], ["models"], ["info", "stream"], ["verify", "stream"]]
)
def test_what_needs_no_model_imports_nothing_heavy(words, stream):
    words = [str(stream) if word == "stream" else word for word in words]
    script = (
        "import sys, codec.cli; code = codec.cli.main(sys.argv[1:]); "
        "heavy = {'torch', 'numpy', 'PIL', 'scipy', 'numba', 'av'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_help_answers_at_once():
    start = time.perf_counter()
    assert command("--help").returncode == 0
    assert time.perf_counter() - start < 1  # 0.2 s where nothing else runs


PIPE = """
import sys
from pathlib import Path
from codec.cli import main
from codec.weights import Zoo
from tests.codec.toy import FAMILIES
sys.exit(main(sys.argv[2:], zoo=Zoo(Path(sys.argv[1]), FAMILIES)))
"""


def piped(zoo, *words):
    return [sys.executable, "-c", PIPE, str(zoo.folder), *map(str, words)]


def test_standard_input_and_output_carry_files(png, zoo):
    encoded = subprocess.run(
        piped(zoo, "encode", "-", "-", "-m", "toy", "-q", 100),
        input=png.read_bytes(), capture_output=True, check=True,
    )  # fmt: skip
    decoded = subprocess.run(
        piped(zoo, "decode", "-", "-"), input=encoded.stdout, capture_output=True, check=True
    )
    with Image.open(io.BytesIO(decoded.stdout)) as got, Image.open(png) as wanted:
        assert got.format == "PNG"
        assert got.tobytes() == wanted.tobytes()


def test_a_reader_that_goes_away_is_no_traceback(png, zoo):
    process = subprocess.Popen(
        piped(zoo, "encode", png, "-", "-m", "toy"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


@pytest.mark.parametrize("words", [["encode", "{png}", "-", "-m", "toy"], ["models", "--json"]])
def test_a_full_disk_behind_standard_output_is_one_line(words, png, zoo):
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            piped(zoo, *(word.format(png=png) for word in words)),
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert one_line(done.stderr)
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_weights_that_are_altered_or_missing_have_their_code(damage, stream, png, tmp_path, capsys):
    own = make_zoo(tmp_path / "own")
    path = own.folder / own.find("toy").file
    path.write_bytes(path.read_bytes() + b"more")
    if damage == "missing":
        path.unlink()
    for words in (
        ["decode", stream, tmp_path / "a.png"],
        ["encode", png, tmp_path / "b", "-m", "toy"],
    ):
        assert cli.main([str(word) for word in words], zoo=own) == 5
        assert one_line(capsys.readouterr().err)
    assert names_in(tmp_path) == {"image.bin", "image.png", "own"}


def test_an_interrupt_leaves_the_old_file(zoo, tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    process = subprocess.Popen(
        piped(zoo, "encode", "-", target, "-m", "toy", "--force"),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    # More than a pipe holds: once it is written, the command is at work and waits for the rest.
    process.stdin.write(bytes(1 << 20))
    process.stdin.flush()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    code = process.wait(timeout=60)
    err = process.stderr.read()
    process.stderr.close()
    process.stdin.close()
    assert (code, err) == (130, b"codec: interrupted\n")
    assert target.read_bytes() == b"old"
    assert names_in(tmp_path) == {"a.bin"}

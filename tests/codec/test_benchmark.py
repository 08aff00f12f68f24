"""Laws of the benchmark: rows are true of files on disk, runs resume, deltas add up."""

import dataclasses
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import codec
from benchmarks import readme
from codec.benchmark import Options, run
from codec.benchmark.anchors import ANCHORS, GROUPS, find
from codec.benchmark.evaluate import MATCHED_BPP
from codec.benchmark.rows import COLUMNS, Row, append_row, read_rows, write_rows
from codec.benchmark.runner import measure, read_rgb, survey
from codec.benchmark.summary import compare_all, curves_of, psnr_of_mean_mse, read_published
from codec.errors import InputError, UsageError
from codec.metrics import psnr
from tests.codec.test_metrics import picture

ROOT = Path(__file__).parents[2]
TIMES = tuple(name for name in COLUMNS if name.endswith("_s"))


def photo(path, height, width, seed):
    Image.fromarray(picture(height, width, seed)).save(path)


def timeless(rows):
    """The rows without their times, which no two runs share."""
    return [dataclasses.replace(row, **dict.fromkeys(TIMES)) for row in rows]


def row(file="a.png", codec_name="jpeg420", quality=50.0, bpp=0.5, dB=30.0):
    return Row(
        file=file,
        image_sha256="0" * 16,
        width=8,
        height=8,
        codec=codec_name,
        made_by="a library, 1.0",
        quality=quality,
        bytes=round(bpp * 8),
        bpp=bpp,
        psnr_rgb=dB,
        psnr_y=dB,
        ms_ssim=None,
        ms_ssim_db=None,
        device="cpu",
        threads=1,
        load_s=0.1,
        encode_s=0.2,
        encode_transform_s=None,
        encode_entropy_s=0.05,
        decode_s=0.3,
        decode_transform_s=0.25,
        decode_entropy_s=None,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images for MS-SSIM, one too small for it, and a text."""
    folder = tmp_path_factory.mktemp("images")
    photo(folder / "a.png", 161, 200, 1)
    photo(folder / "b, c.png", 170, 165, 2)
    photo(folder / "tiny.png", 9, 30, 3)
    (folder / "readme.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def options(zoo):
    return Options(
        models=("toy",), anchors=("jpeg420", "webp"), qualities=(0, 40, 70, 100), jobs=2, zoo=zoo
    )


@pytest.fixture(scope="module")
def result(folder, out, options):
    return run(folder, out, options=options)


# ---- anchors


def test_every_anchor_can_run_or_says_why_not():
    found, missing = find(GROUPS)
    assert {anchor.name for anchor in found} | set(missing) == set(ANCHORS)
    assert all(missing.values())


@pytest.mark.parametrize("anchor", find(GROUPS)[0], ids=lambda anchor: anchor.name)
def test_an_anchor_gives_the_image_back_the_better_the_more_bytes_it_may_take(anchor):
    image = Image.fromarray(picture(64, 96, 4))
    worst, best = (anchor.encode(image, anchor.qualities[i]) for i in (0, -1))
    assert len(worst) < len(best)
    near, far = anchor.decode(best), anchor.decode(worst)
    assert (near.mode, near.size) == ("RGB", image.size)
    assert psnr(image, far) < psnr(image, near)


@pytest.mark.parametrize("anchor", find(GROUPS)[0], ids=lambda anchor: anchor.name)
def test_an_anchor_makes_use_of_what_the_channels_share(anchor):
    apart = picture(96, 96, 4)
    grey = np.repeat(apart[..., :1], 3, axis=2)
    quality = anchor.qualities[len(anchor.qualities) // 2]
    files = [anchor.encode(Image.fromarray(pixels), quality) for pixels in (apart, grey)]
    gain = psnr(grey, anchor.decode(files[1])) - psnr(apart, anchor.decode(files[0]))
    assert gain > 0.3  # dB; without a colour transform there is none


def test_an_anchor_whose_library_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    found, missing = find(["jxl", "jpeg", "heic"])
    assert [anchor.name for anchor in found] == ["jpeg420", "jpeg444"]
    assert "imagecodecs" in missing["jxl_e7"]
    assert "pillow_heif" in missing["heic_x265"]


def test_an_anchor_that_nobody_knows_is_refused():
    with pytest.raises(UsageError, match=r"'bgp'.*jpeg"):
        find(["bgp"])


# ---- the table


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1)
ROWS = st.lists(
    st.builds(
        row,
        file=NAMES,
        codec_name=st.sampled_from(["jpeg420", "iscs", "iscs/small"]),
        quality=st.integers(0, 100).map(float),
        bpp=st.integers(1, 10**6).map(lambda n: n / 10**5),
        dB=st.one_of(st.just(math.inf), st.integers(0, 10**4).map(lambda n: n / 100)),
    ),
    max_size=5,
    unique_by=lambda row: (row.file, row.codec, row.quality),
)


@settings(max_examples=30, deadline=None)
@given(ROWS)
def test_a_table_reads_back_as_it_was_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("table") / "images.csv"
    write_rows(path, rows)
    assert read_rows(path) == sorted(rows, key=lambda row: (row.file, row.codec, row.quality))


@settings(max_examples=30, deadline=None)
@given(ROWS, st.data())
def test_a_table_that_was_cut_anywhere_loses_only_its_last_row(tmp_path_factory, rows, data):
    path = tmp_path_factory.mktemp("table") / "images.csv"
    write_rows(path, [])
    sizes = [path.stat().st_size]
    for each in rows:
        append_row(path, each)
        sizes.append(path.stat().st_size)
    cut = data.draw(st.integers(sizes[0], sizes[-1]))
    os.truncate(path, cut)
    assert read_rows(path) == rows[: sum(size <= cut for size in sizes[1:])]


def test_a_table_of_something_else_is_refused(tmp_path):
    path = tmp_path / "images.csv"
    path.write_text("name,size\nx,1\n")
    with pytest.raises(InputError, match="columns file,"):
        read_rows(path)
    write_rows(path, [])
    path.write_text(path.read_text() + "only,three,cells\n")
    with pytest.raises(InputError, match=f"line 2: want {len(COLUMNS)} cells, got 3"):
        read_rows(path)


# ---- the run


def test_every_image_codec_and_quality_has_its_row(result, options):
    made = {(row.file, row.codec, row.quality) for row in result.rows}
    qualities = {"toy": options.qualities}
    qualities |= {name: ANCHORS[name].qualities for name in ("jpeg420", "webp_m6")}
    files = ("a.png", "b, c.png", "tiny.png")
    assert made == {(file, name, q) for file in files for name, qs in qualities.items() for q in qs}
    assert len(result.rows) == len(made)


def test_a_row_is_true_of_the_file_on_disk(result, folder, out):
    for each in result.rows:
        (stream,) = (out / "streams" / each.codec / f"{each.quality:g}").glob(f"{each.file}.*")
        image = read_rgb(folder / each.file)
        assert stream.stat().st_size == each.bytes
        assert each.bpp == pytest.approx(8 * each.bytes / (image.width * image.height), rel=1e-6)
        if each.codec in ANCHORS:
            decoded = ANCHORS[each.codec].decode(stream.read_bytes())
            assert each.psnr_rgb == pytest.approx(psnr(image, decoded), rel=1e-6)


def test_our_models_run_through_the_api_that_everybody_uses(result, folder, zoo):
    for each in (row for row in result.rows if row.codec == "toy"):
        image = read_rgb(folder / each.file)
        data = codec.encode(image, quality=int(each.quality), model="toy", zoo=zoo)
        assert each.bytes == len(data)
        assert each.psnr_rgb == pytest.approx(psnr(image, codec.decode(data, zoo=zoo)), rel=1e-6)
        assert zoo.find("toy").sha256[:16] in each.made_by


def test_the_parts_of_a_time_are_within_the_whole(result):
    for each in result.rows:
        if each.codec == "toy":
            assert each.encode_transform_s + each.encode_entropy_s <= each.encode_s * 1.01
            assert each.decode_transform_s + each.decode_entropy_s <= each.decode_s * 1.01
        else:
            assert each.encode_transform_s is each.decode_entropy_s is None
        assert min(each.load_s, each.encode_s, each.decode_s) > 0


def test_a_small_image_is_reported_without_ms_ssim(result):
    for each in result.rows:
        assert (each.ms_ssim is None) == (each.ms_ssim_db is None) == (each.file == "tiny.png")
    assert all(point.ms_ssim is None for curve in result.curves for point in curve.points)


def test_a_file_that_is_no_image_is_skipped_with_a_warning_and_listed(folder, out, result, caplog):
    sources, skipped = survey(folder)
    assert [source.path.name for source in sources] == ["a.png", "b, c.png", "tiny.png"]
    assert [item.file for item in skipped] == ["readme.txt"]
    assert "readme.txt: skipped: not an image" in caplog.text
    assert result.skipped == skipped
    assert json.loads((out / "results.json").read_text())["skipped"][0]["file"] == "readme.txt"
    assert "readme.txt was skipped" in result.report.read_text()


def test_an_image_deeper_than_8_bits_is_no_image_for_this_benchmark(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match="not an 8-bit image"):
        read_rgb(tmp_path / "deep.png")


def test_a_name_that_no_table_can_hold_is_skipped(folder, tmp_path):
    image = (folder / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(image)
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(image)
    sources, skipped = survey(tmp_path)
    assert [source.path.name for source in sources] == ["a.png"]
    assert [(item.file, item.reason) for item in skipped] == [
        ("caf\N{REPLACEMENT CHARACTER}.png", "its name is not UTF-8")
    ]


def test_a_folder_without_images_is_refused(tmp_path):
    for path, says in ((tmp_path, "no image"), (tmp_path / "none", "want a folder")):
        with pytest.raises(InputError, match=says):
            survey(path)


def test_what_one_codec_cannot_take_is_listed_and_ends_nothing(tmp_path):
    Image.new("L", (16384, 1)).save(tmp_path / "wide.png")  # one pixel more than a WebP may have
    options = Options(models=(), anchors=("webp", "jpeg420"))
    result = run(tmp_path, tmp_path / "out", options=options)
    failed = {(item.file, item.codec) for item in result.failures}
    assert failed == {("wide.png", "webp_m6")}
    assert {row.codec for row in result.rows} == {"jpeg420"}
    assert "webp_m6 at 95 failed on wide.png" in result.report.read_text()


def test_a_repeated_run_makes_nothing_again_and_finds_the_same(result, folder, out, options):
    before = {path: path.stat().st_mtime_ns for path in (out / "streams").rglob("*.*")}
    again = run(folder, out, options=options)
    assert again.rows == result.rows
    assert again.comparisons == result.comparisons
    assert {path: path.stat().st_mtime_ns for path in (out / "streams").rglob("*.*")} == before


def test_a_killed_run_that_is_resumed_gives_the_same_table(result, folder, options, tmp_path):
    script = (
        "import sys; from pathlib import Path\n"
        "from codec.benchmark import Options, run\n"
        "from codec.weights import Zoo\n"
        "from tests.codec.toy import FAMILIES\n"
        "if __name__ == '__main__':\n"
        "    folder, out, zoo = map(Path, sys.argv[1:])\n"
        f"    options = Options(models={options.models}, anchors={options.anchors},\n"
        f"        qualities={options.qualities}, jobs=2, zoo=Zoo(zoo, FAMILIES))\n"
        "    run(folder, out, options=options)\n"
    )
    (tmp_path / "bench.py").write_text(script)
    out = tmp_path / "out"
    command = [sys.executable, tmp_path / "bench.py", folder, out, options.zoo.folder]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        table = out / "images.csv"
        while not table.exists() or table.read_bytes().count(b"\n") < 8:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    kept = read_rows(table)
    assert 0 < len(kept) < len(result.rows)
    began = time.monotonic()
    while _group_lives(process.pid):  # the processes of the pool end with their parent
        assert time.monotonic() - began < 60
        time.sleep(0.01)

    resumed = run(folder, out, options=options)
    assert timeless(resumed.rows) == timeless(result.rows)
    assert set(kept) <= set(resumed.rows)
    assert [c.points[0].bpp for c in resumed.curves] == [c.points[0].bpp for c in result.curves]


def _group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("change", ["image", "origin", "stream"])
def test_a_row_that_is_no_longer_true_is_made_again(tmp_path, change, zoo):
    from codec.benchmark.runner import Task

    photo(tmp_path / "a.png", 16, 16, 5)

    def tasks(made_by):
        (source,), _ = survey(tmp_path)
        given = {"device": "cpu", "suffix": ".jpg", "streams": tmp_path / "streams", "zoo": zoo}
        return [Task(source, "jpeg420", q, made_by, **given) for q in (50, 90)]

    table = tmp_path / "images.csv"
    (tmp_path / "a.png").rename(tmp_path / "a.png")
    before, _ = measure(tasks("1.0"), table, jobs=1)
    made_by = "1.0"
    if change == "image":
        photo(tmp_path / "a.png", 16, 16, 6)
    elif change == "origin":
        made_by = "2.0"
    else:
        tasks("1.0")[0].stream.unlink()
    table.write_text(table.read_text().replace(",cpu,1,", ",cpu,7,"))  # marks the rows of before
    after, _ = measure(tasks(made_by), table, jobs=1)
    again = [row.threads == 1 for row in after]
    assert again == ([True, False] if change == "stream" else [True, True])
    assert len(after) == len(before) == 2


def test_pictures_of_the_report_come_close_to_the_matched_rate(result, out):
    rows = read_rows(out / "matched.csv")
    for name in ("jpeg420", "webp_m6"):
        grid = [row.bpp for row in result.rows if (row.file, row.codec) == ("a.png", name)]
        for target in MATCHED_BPP:
            reachable = min(max(target, min(grid)), max(grid))
            found = [row.bpp for row in rows if (row.file, row.codec) == ("a.png", name)]
            assert min(abs(math.log(bpp / reachable)) for bpp in found) < math.log(1.15)


def test_without_matplotlib_the_error_names_the_extra_before_any_work(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"codec\[bench\]"):
        run(folder, tmp_path / "out", options=Options(models=()))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "bad", [{"models": (), "anchors": ()}, {"jobs": 0}, {"device": "tpu"}, {"qualities": (101,)}]
)
def test_options_that_make_no_sense_are_refused(bad):
    with pytest.raises(UsageError, match=r"want"):
        Options(**bad)


def test_importing_the_benchmark_imports_neither_torch_nor_matplotlib():
    code = "import sys, codec.benchmark.cli; print({'torch', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


# ---- curves and deltas


def scaled(rate, gain, images=6):
    """Rows of one codec with `rate` times the bytes and `gain` dB more, of images that differ."""
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.5, 2, images)
    return [
        row(f"{i}.png", "webp_m6" if (rate, gain) != (1, 0) else "jpeg420", q, bpp, dB)
        for i in range(images)
        for q, bpp, dB in (
            (q, 0.05 * 2**q * hard[i] * rate, 26 + 2.8 * q - hard[i] + gain) for q in range(5)
        )
    ]


def deltas(rows):
    compared = compare_all(curves_of(rows), generator=np.random.default_rng(1))
    return [item for item in compared if (item.anchor, item.test) == ("jpeg420", "webp_m6")]


def test_a_codec_that_needs_a_tenth_less_is_ten_percent_better_by_every_rule():
    found = deltas(scaled(1, 0) + scaled(0.9, 0))
    assert {(item.rule, item.interpolation) for item in found} == {
        (rule, how) for rule in ("mean curve", "mean of images") for how in ("pchip", "akima")
    }
    for item in found:
        assert item.result.rate_percent == pytest.approx(-10)
        assert item.images == 6
        if item.low_percent is not None:
            assert (item.low_percent, item.high_percent) == pytest.approx((-10, -10))
    assert any(item.low_percent is not None for item in found)


def test_the_interval_tells_how_much_depends_on_the_images():
    rows = scaled(1, 0)
    uneven = [
        dataclasses.replace(each, bpp=each.bpp * (0.5 if each.file < "3" else 1.5))
        for each in scaled(0.99, 0)
    ]
    for item in deltas(rows + uneven):
        if item.low_percent is not None:
            assert item.low_percent < item.result.rate_percent - 5
            assert item.high_percent > item.result.rate_percent + 5


def test_a_quality_that_some_image_lacks_is_no_point_of_the_curve():
    rows = [each for each in scaled(1, 0) if (each.file, each.quality) != ("3.png", 2)]
    (curve,) = curves_of(rows)
    assert [point.quality for point in curve.points] == [0, 1, 3, 4]


@settings(deadline=None)
@given(st.lists(st.floats(10, 60), min_size=1, max_size=9))
def test_averaging_errors_never_flatters_more_than_averaging_decibels(values):
    assert psnr_of_mean_mse(values) <= np.mean(values) + 1e-9
    assert psnr_of_mean_mse(values) >= min(values) - 1e-9


def test_psnr_of_mean_mse_of_lossless_images_is_infinite():
    assert psnr_of_mean_mse([math.inf, math.inf]) == math.inf
    assert psnr_of_mean_mse([math.inf, 30.0]) == pytest.approx(30 + 10 * math.log10(2))


@pytest.mark.parametrize("name", ["kodak", "kodak_peers"])
def test_published_points_of_both_layouts_can_be_read(name):
    path = ROOT / "benchmarks" / "published" / f"{name}.json"
    content = json.loads(path.read_text())
    content = content.get("curves", content)
    curves = read_published(path)
    assert [curve.label for curve in curves] == [f"{key} (published)" for key in content]
    for curve, entry in zip(curves, content.values(), strict=True):
        assert curve.description
        assert curve.caveat == entry.get("caveat", "")
        expected = np.transpose([entry["bpp"], entry["psnr"]])
        assert curve.values("psnr_rgb").tolist() == expected.tolist()
        assert curve.values("ms_ssim_db").shape == (0, 2)


@pytest.mark.parametrize(
    "text",
    ["{", "[1]", '{"x": {"bpp": [1]}}', '{"x": 1}', '{"x": {"bpp": [1], "psnr": []}}'],
)
def test_what_holds_no_published_points_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match="want published points"):
        read_published(tmp_path / "x.json")


# ---- what is written


def test_the_results_are_in_the_schema_of_compressai(result, out):
    content = json.loads((out / "results.json").read_text())
    assert [entry["name"] for entry in content["curves"]] == ["codec toy", "JPEG 4:2:0", "WebP"]
    for entry, curve in zip(content["curves"], result.curves, strict=True):
        alone = json.loads((out / "curves" / f"{curve.name}.json").read_text())
        assert alone == entry
        assert set(alone) == {"name", "description", "results"}
        columns = alone["results"]
        assert {"bpp", "psnr-rgb", "encoding_time", "decoding_time"} <= set(columns)
        assert {len(column) for column in columns.values()} == {len(curve.points)}
        assert columns["bpp"] == sorted(columns["bpp"])


def test_the_head_says_where_the_figures_come_from(result, zoo):
    assert result.head["images"] == 3
    assert result.head["weights_sha256"] == {"toy": zoo.find("toy").sha256}
    assert result.head["libraries"]["codec"] == codec.__version__
    assert len(result.head["image_list_sha256"]) == 64


def test_plots_are_pictures(result, out):
    for name in ("rd_psnr", "rd_ms_ssim"):
        assert Image.open(io.BytesIO((out / f"{name}.png").read_bytes())).format == "PNG"
        assert "<svg" in (out / f"{name}.svg").read_text()


# ---- what is committed


KODAK = ROOT / "benchmarks" / "results" / codec.__version__ / "kodak.csv"
PEERS = ROOT / "benchmarks" / "published" / "kodak_peers.json"


@pytest.mark.parametrize("name", ["jpeg420", "jpeg444", "webp_m6", "avif_s6", "jxl_e7", "jp2"])
def test_the_committed_curves_agree_with_an_independent_measurement(name):
    curve = next(curve for curve in curves_of(read_rows(KODAK)) if curve.name == name)
    peers = json.loads(PEERS.read_text())["curves"][name]
    expected = np.transpose([peers["bpp"], peers["psnr"]])
    measured = curve.values("psnr_rgb")
    assert measured[:, 0] == pytest.approx(expected[:, 0], rel=0.01)
    assert measured[:, 1] == pytest.approx(expected[:, 1], abs=0.05)


def test_the_text_of_the_readme_is_made_of_the_committed_table():
    text, _ = readme.results(ROOT, codec.__version__)
    subject, *others = curves_of(read_rows(KODAK))
    assert subject.label in text
    assert all(f"| {curve.label} | " in text for curve in others)


def test_the_results_replace_what_stands_between_the_two_lines_and_nothing_else():
    old = f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n"
    new = readme.inserted(old, "new")
    assert new == f"before\n{readme.BEGIN}\nnew\n{readme.END}\nafter\n"
    assert readme.inserted(new, "new") == new
    with pytest.raises(ValueError, match="want the lines"):
        readme.inserted("no lines", "new")


def test_checking_the_readme_notices_every_change(tmp_path, monkeypatch):
    for name in ("benchmarks", "docs"):
        (tmp_path / name).mkdir()
    for name in ("results", "published"):
        (tmp_path / "benchmarks" / name).symlink_to(ROOT / "benchmarks" / name)
    page = tmp_path / "README.md"
    page.write_text(f"{readme.BEGIN}\n{readme.END}\n")

    def call(*options):
        monkeypatch.setattr(sys, "argv", ["readme.py", "--root", str(tmp_path), *options])
        return readme.main()

    assert call("--check") == 1
    assert call() == 0
    assert call("--check") == 0
    page.write_text(page.read_text().replace("%", "per cent", 1))
    assert call("--check") == 1
    assert call() == 0
    (tmp_path / readme.PLOT).write_text("<svg>of another table</svg>")
    assert call("--check") == 1

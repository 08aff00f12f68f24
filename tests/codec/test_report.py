"""The report in a real browser: chromium without a window, driven by chromedriver.

Both must be installed (Debian: chromium, chromium-driver). A plain run leaves these tests out;
`python -m pytest -m browser` runs them.
"""

import json
import re
import shutil

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from codec.benchmark import Options, run
from tests.codec.test_metrics import picture

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A run over images whose names could break a page that does not escape them."""
    folder = tmp_path_factory.mktemp("images")
    for seed, name in enumerate(("a.png", "<!--<script> & 'c'.png")):
        Image.fromarray(picture(170, 180, seed)).save(folder / name)
    (folder / "<script>alert(1)</script>".replace("/", "_")).write_text("no image")
    published = tmp_path_factory.mktemp("published") / "points.json"
    curve = {"bpp": [0.1, 0.4, 1.6], "psnr": [22.0, 27.0, 33.0], "caveat": "</script> by hand"}
    published.write_text(json.dumps({"elsewhere": curve}))
    options = Options(models=(), anchors=("jpeg420", "webp"), published=(published,))
    return run(folder, tmp_path_factory.mktemp("out"), options=options)


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = _program("chromium", "chromium-browser", "google-chrome")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1300,1200")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, Service(_program("chromedriver")))
    yield driver
    driver.quit()


def _program(*names):
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    raise AssertionError(f"{names[0]} is not installed")


@pytest.fixture
def page(browser, result):
    browser.get(result.report.as_uri())
    return browser


def border(page):
    """Where the line stands and where the left picture is cut, in percent."""
    line = page.find_element(By.CSS_SELECTOR, "#stage .line").get_attribute("style")
    cut = page.find_element(By.ID, "left-picture").value_of_css_property("clip-path")
    return float(re.search(r"left: ([\d.]+)%", line)[1]), 100 - float(
        re.search(r"inset\(0px ([\d.]+)%", cut)[1]
    )


def shown(page, side):
    source = page.find_element(By.ID, f"{side}-picture").get_attribute("src")
    return source, page.find_element(By.ID, f"{side}-caption").text


def choose(page, control, text):
    Select(page.find_element(By.ID, control)).select_by_visible_text(text)


def test_the_slider_moves_the_border_between_the_pictures(page):
    assert border(page) == (50, 50)
    slider = page.find_element(By.ID, "slider")
    for _ in range(20):
        slider.send_keys(Keys.ARROW_RIGHT)
    assert border(page) == (60, 60)
    slider.send_keys(Keys.HOME)
    assert border(page) == (0, 0)


def test_the_pointer_moves_the_border_too(page):
    stage = page.find_element(By.ID, "stage")
    webdriver.ActionChains(page).move_to_element_with_offset(
        stage, stage.size["width"] // 4, 0
    ).perform()
    assert border(page) == pytest.approx((75, 75), abs=1)


def test_a_codec_an_image_and_a_rate_can_be_switched(page):
    seen = {shown(page, "left")}
    assert "JPEG 4:2:0" in shown(page, "left")[1]
    assert "WebP" in shown(page, "right")[1]
    for control, choice in (("left", "WebP"), ("rate", "0.75 bpp"), ("image", "a.png")):
        choose(page, control, choice)
        seen.add(shown(page, "left"))
        assert shown(page, "left") == shown(page, "right")
    choose(page, "left", "original")
    assert shown(page, "left")[1] == "original: the image itself"
    seen.add(shown(page, "left"))
    assert len(seen) == 5
    assert len({source for source, _ in seen}) == 5


def test_the_pictures_are_really_there(page):
    for side in ("left", "right"):
        element = page.find_element(By.ID, f"{side}-picture")
        assert element.get_property("naturalWidth") == 180
        assert element.get_property("naturalHeight") == 170


def test_the_caption_is_of_the_file_that_is_shown(page, result):
    choose(page, "image", "a.png")
    matched = (result.report.parent / "matched").rglob("a.png.jpg")
    assert re.search(r"\((\d+) bytes\)", shown(page, "left")[1])[1] in {
        str(path.stat().st_size) for path in matched
    }


@pytest.mark.parametrize("metric", ["psnr_rgb", "ms_ssim_db"])
@pytest.mark.parametrize("rule", ["mean curve", "mean of images"])
@pytest.mark.parametrize("interpolation", ["pchip", "akima"])
def test_the_table_shows_the_delta_that_was_computed(page, result, metric, rule, interpolation):
    for control, value in (("metric", metric), ("rule", rule), ("interpolation", interpolation)):
        Select(page.find_element(By.ID, control)).select_by_value(value)
    (item,) = (
        item
        for item in result.comparisons
        if (item.anchor, item.test, item.metric, item.rule, item.interpolation)
        == ("jpeg420", "webp_m6", metric, rule, interpolation)
    )
    heads = [cell.text for cell in page.find_elements(By.CSS_SELECTOR, "#deltas th")]
    line = page.find_elements(By.CSS_SELECTOR, "#deltas tr")[2]
    cell = line.find_elements(By.TAG_NAME, "td")[heads.index("vs JPEG 4:2:0")]
    assert line.text.startswith("WebP")
    assert cell.text.startswith(f"{item.result.rate_percent:+.1f} %")
    assert f"{item.result.low_db:.2f} to {item.result.high_db:.2f} dB" in cell.get_attribute(
        "title"
    )
    if item.low_percent is not None:
        assert f"{item.low_percent:+.1f} to {item.high_percent:+.1f}" in cell.text


def test_published_points_stand_beside_with_their_caveat(page):
    assert "vs elsewhere (published)" in page.find_element(By.ID, "deltas").text
    assert "elsewhere (published), caveat: </script> by hand" in page.page_source.replace(
        "&lt;", "<"
    ).replace("&gt;", ">")


def test_both_plots_are_drawn_in_the_page(page):
    plots = page.find_elements(By.CSS_SELECTOR, "figure svg")
    assert len(plots) == 2
    assert all(plot.size["height"] > 200 for plot in plots)
    assert "WebP" in plots[0].text
    assert "elsewhere (published)" in plots[0].text


def test_nothing_is_fetched_and_nothing_goes_wrong(page, result):
    choose(page, "left", "WebP")
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert result.report.as_uri() in asked
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert {url for url in asked if url.startswith("file:")} == {result.report.as_uri()}
    assert page.get_log("browser") == []

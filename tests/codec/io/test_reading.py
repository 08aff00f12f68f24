import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from codec.errors import CodecError, InputError, LimitError
from codec.io import writing
from codec.io.reading import read_image, read_picture
from tests.codec.images import (
    MODES,
    SIZES,
    deep_png,
    deep_tiff,
    file_of,
    gradient,
    image_of_mode,
    odd_files,
    png_of,
)  # fmt: skip

MANY = 1 << 24
ORIENTATION = 0x0112


def read(data):
    return read_picture(data, max_pixels=MANY)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_smallest_sizes_are_read(width, height):
    picture = read(file_of(image_of_mode("RGB", width, height)))
    assert (picture.width, picture.height) == (width, height)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P", "P+alpha", "I;16"])
def test_a_png_keeps_mode_and_pixels(mode):
    image = image_of_mode(mode)
    back = read(file_of(image)).to_image()
    assert back.mode == image.mode
    assert back.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()


@pytest.mark.parametrize(
    ("name", "mode"),
    [("JPEG", "CMYK"), ("TIFF", "CMYK"), ("TIFF", "YCbCr"), ("WEBP", "RGBA"), ("GIF", "P"),
     ("BMP", "1"), ("PPM", "RGB"), ("TIFF", "PA"), ("TGA", "LA")],
)  # fmt: skip
def test_other_formats_keep_their_mode(name, mode):
    data = file_of(image_of_mode(mode), name)
    with Image.open(io.BytesIO(data)) as image:
        assert read(data).to_image().mode == image.mode


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_are_read_whole(channels):
    samples = gradient(9, 11, channels, np.uint16)
    picture = read(deep_png(samples))
    assert picture.bit_depth == 16
    assert np.array_equal(picture.to_array(), samples[:, :, 0] if channels == 1 else samples)


def test_sixteen_bits_of_a_tiff_are_read_whole():
    samples = gradient(9, 11, 3, np.uint16)
    assert np.array_equal(read(deep_tiff(samples)).to_array(), samples)


def test_a_transparent_colour_of_sixteen_bits_is_kept_as_one():
    samples = gradient(4, 5, 3, np.uint16)
    key = tuple(int(level) for level in samples[1, 2])
    picture = read(deep_png(samples, key=key))
    assert picture.key == key
    assert picture.alpha[1, 2] == 0
    assert np.array_equal(picture.to_array(), samples)


def test_a_transparent_level_of_two_bits_is_scaled_as_its_pixels_are():
    header = struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0)  # 4 pixels of 2 bits of grey
    pixels = zlib.compress(bytes([0, 0b00011011]))
    picture = read(png_of((b"IHDR", header), (b"tRNS", b"\0\2"), (b"IDAT", pixels)))
    assert picture.colour[0, :, 0].tolist() == [0, 85, 170, 255]
    assert picture.key == (170,)
    assert picture.alpha.tolist() == [[255, 255, 0, 255]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_orientation_is_applied_once_and_for_all(name, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[0x010F] = "A camera"
    data = file_of(image_of_mode("L", 40, 24), name, exif=exif)
    picture = read(data)
    turned = orientation >= 5
    assert (picture.width, picture.height) == ((24, 40) if turned else (40, 24))
    back = Image.Exif()
    back.load(picture.metadata.exif)
    assert back.get(ORIENTATION, 1) == 1
    assert back[0x010F] == "A camera"


def test_metadata_are_kept():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Author", "A. Person")
    texts.add_itxt("Title", "Ein Bild \u2603")
    texts.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta/>")
    data = file_of(image_of_mode("RGB"), pnginfo=texts, icc_profile=profile)
    metadata = read(data).metadata
    assert metadata.icc == profile
    assert metadata.xmp == b"<x:xmpmeta/>"
    assert metadata.texts == {"Author": "A. Person", "Title": "Ein Bild \u2603"}


def test_a_comment_of_a_jpeg_is_text():
    assert read(file_of(image_of_mode("L"), "JPEG", comment=b"hello")).metadata.texts == {
        "Comment": "hello"
    }


def test_an_animation_gives_its_first_frame_and_a_warning(caplog):
    frames = [image_of_mode("RGB"), Image.new("RGB", (23, 19))]
    data = file_of(frames[0], save_all=True, append_images=frames[1:])
    picture = read(data)
    assert picture.to_image().tobytes() == frames[0].tobytes()
    assert "first" in caplog.text


def test_an_open_image_is_read_as_its_file_is():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = file_of(image_of_mode("RGB", 40, 24), exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        picture = read_image(image, max_pixels=MANY)
    assert picture.to_image().tobytes() == read(data).to_image().tobytes()


def test_no_more_pixels_than_allowed():
    data = file_of(Image.new("1", (2000, 1000)))
    assert read_picture(data, max_pixels=2_000_000).width == 2000
    with pytest.raises(LimitError, match="2000x1000"):
        read_picture(data, max_pixels=1_999_999)


def test_pillow_s_own_limit_is_neither_used_nor_lost(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4711)
    header = file_of(Image.new("1", (20_000, 10_000)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(header, max_pixels=1 << 28).height == 10_000
    assert Image.MAX_IMAGE_PIXELS == 4711


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM"])
def test_what_is_no_image_is_refused_in_one_line(data):
    with pytest.raises(InputError) as caught:
        read(data)
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


@given(st.data())
def test_a_damaged_image_is_read_or_refused(data):
    name = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"]))
    damaged = bytearray(file_of(image_of_mode("RGB"), name))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    try:
        picture = read(bytes(damaged[:cut]))
    except CodecError:
        return
    assert picture.width * picture.height <= MANY


@given(st.data())
def test_a_damaged_image_of_sixteen_bits_is_read_or_refused(data):
    damaged = bytearray(deep_png(gradient(5, 6, 3, np.uint16)))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = read(bytes(damaged))
    except CodecError:
        return
    assert picture.width * picture.height <= MANY


ODD = odd_files()


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_an_odd_file_keeps_its_mode_and_size_or_is_refused(data):
    try:
        picture = read_picture(data, max_pixels=1 << 28)
    except InputError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            size = image.size if image.getexif().get(ORIENTATION, 1) < 5 else image.size[::-1]
            mode = image.mode
    # Pillow reads some colour of 16 bits as another mode, but always the same.
    file = writing.write_picture(
        picture, "TIFF" if picture.mode in ("CMYK", "YCbCr", "PA") else "PNG"
    )
    with Image.open(io.BytesIO(file)) as back:
        assert (back.size, back.mode) == (size, mode)


def test_every_mode_is_in_the_list():
    assert {image_of_mode(mode).mode for mode in MODES} >= {"1", "L", "P", "PA", "CMYK", "YCbCr"}

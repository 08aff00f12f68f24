import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from codec.errors import UsageError
from codec.io import writing
from codec.io.metadata import Metadata
from codec.io.picture import PILLOWS, Picture
from codec.io.reading import read_picture
from codec.io.writing import format_of
from tests.codec.images import KEYED, MODES, gradient, image_of_mode

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM")
CLEAR = ("LA", "RGBA", "P+alpha", "P+index", "PA", *KEYED)


def read(data):
    return read_picture(data, max_pixels=1 << 20)


def write_picture(picture, name):
    return bytes(writing.write_picture(picture, name))


def opened(data):
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


@pytest.mark.parametrize(
    ("target", "name"),
    [("a.png", "PNG"), ("a.JPG", "JPEG"), ("b.tif", "TIFF"), ("-", "PNG"), ("x.pgm", "PPM")],
)
def test_the_extension_is_the_format(target, name):
    assert format_of(target) == name


@pytest.mark.parametrize("target", ["a", "a.xyz", "a.txt", "a.psd"])
def test_an_extension_that_is_no_format_to_write_is_refused(target):
    with pytest.raises(UsageError, match="extension"):
        format_of(target)


@pytest.mark.parametrize("mode", [*MODES, *KEYED, "I;16"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_every_mode_or_says_why_not(name, mode):
    image = image_of_mode(mode)
    picture = Picture.from_image(image)
    if mode in CLEAR and name in ("JPEG", "BMP", "PPM"):
        with pytest.raises(UsageError, match="transparency"):
            write_picture(picture, name)
        return
    back = opened(write_picture(picture, name))
    assert back.size == image.size
    assert back.has_transparency_data == (mode in CLEAR)
    if name != "JPEG" and mode not in ("CMYK", "YCbCr", "I;16"):
        assert back.convert("RGBA").tobytes() == picture.to_image().convert("RGBA").tobytes()


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "RGB", "RGBA", "P", "P+alpha", "P+index", *KEYED, "I;16"]
)
def test_a_png_gives_back_the_very_picture(mode):
    picture = Picture.from_image(image_of_mode(mode))
    back = read(write_picture(picture, "PNG"))
    assert (back.mode, back.key) == (picture.mode, picture.key)
    assert np.array_equal(back.colour, picture.colour)
    assert picture.alpha is None or np.array_equal(back.alpha, picture.alpha)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (7, 1), (1, 9), (13, 17)])
def test_a_png_of_sixteen_bits_gives_back_the_very_samples(size, channels):
    samples = gradient(*size, channels, np.uint16)
    back = read(write_picture(Picture.from_array(samples), "PNG")).to_array()
    assert np.array_equal(back, samples[:, :, 0] if channels == 1 else samples)


def test_a_map_of_sixteen_bits_is_what_pillow_reads():
    samples = gradient(5, 7, 1, np.uint16)
    data = write_picture(Picture.from_array(samples), "PPM")
    assert np.array_equal(np.asarray(opened(data)), samples[:, :, 0])


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "BMP"])
def test_sixteen_bits_become_eight_where_they_must_and_it_is_said(name, caplog):
    samples = np.full((16, 16, 3), 200 * 257 + 100, np.uint16)
    back = np.asarray(opened(write_picture(Picture.from_array(samples), name)).convert("RGB"))
    assert abs(back.astype(int) - 200).max() <= 1
    assert "8 of the 16 bits" in caplog.text


@pytest.mark.parametrize("deep", [False, True], ids=["8", "16"])
def test_a_png_keeps_all_metadata(deep):
    metadata = Metadata(
        icc=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        exif=Image.Exif().tobytes().removeprefix(b"Exif\0\0"),
        xmp=b"<x:xmpmeta/>",
        texts={"Author": "A. Person", "Title": "Ein Bild \u2603"},
    )
    samples = gradient(4, 4, 3, np.uint16 if deep else np.uint8)
    mode = Picture.from_array(samples)
    picture = Picture(mode.mode, mode.colour, metadata=metadata)
    assert read(write_picture(picture, "PNG")).metadata == metadata


@pytest.mark.parametrize("name", [*FORMATS, "GIF"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_text_called_like_something_of_pillow_s_costs_nothing(mode, name):
    texts = dict.fromkeys(PILLOWS, "text")
    picture = replace(Picture.from_image(image_of_mode(mode)), metadata=Metadata(texts=texts))
    data = write_picture(picture, name)
    assert opened(data).size == (picture.width, picture.height)
    if name == "PNG":
        back = read(data)
        assert texts.items() <= back.metadata.texts.items()
        np.testing.assert_array_equal(picture.colour, back.colour)


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "TIFF"])
def test_profile_exif_and_xmp_go_wherever_they_can(name):
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] = 200
    metadata = Metadata(
        icc=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        exif=exif.tobytes().removeprefix(b"Exif\0\0"),
        xmp=b"<x:xmpmeta/>",
    )
    picture = Picture("RGB", gradient(4, 4, 3), metadata=metadata)
    back = opened(write_picture(picture, name))
    assert back.info["icc_profile"] == metadata.icc
    tags = back.getexif()
    assert tags[0x010F] == "A camera"
    assert tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] == 200
    assert back.info["xmp"] == metadata.xmp


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("exif", [b"garbage", b"II*\0\x08\0\0\0\xff\xff" + bytes(range(200))])
def test_metadata_that_make_no_sense_do_not_cost_the_picture(name, exif):
    picture = Picture("RGB", gradient(4, 4, 3), metadata=Metadata(exif=exif, xmp=b"\xff\0<"))
    assert read(write_picture(picture, name)).width == 4


def test_a_jpeg_leaves_out_only_what_its_segments_cannot_hold():
    long, short = b"II*\0\x08\0\0\0" + bytes(70_000), b"<x:xmpmeta/>"
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    for metadata in (Metadata(exif=long, xmp=short), Metadata(exif=block, xmp=b"x" * 70_000)):
        picture = Picture("RGB", gradient(4, 4, 3), metadata=metadata)
        back = opened(write_picture(picture, "JPEG"))
        assert ("exif" in back.info) == (metadata.exif == block)
        assert ("xmp" in back.info) == (metadata.xmp == short)

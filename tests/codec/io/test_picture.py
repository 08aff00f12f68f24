import numpy as np
import pytest
from PIL import Image

from codec.errors import InputError, UsageError
from codec.io.picture import Picture
from tests.codec.images import KEYED, MODES, gradient, image_of_mode


def same(a, b):
    """Whether two images look the same, whatever the order of their palettes."""
    return a.size == b.size and a.convert("RGBA").tobytes() == b.convert("RGBA").tobytes()


@pytest.mark.parametrize("mode", [*MODES, *KEYED, "I;16"])
def test_an_image_comes_back_in_its_mode(mode):
    image = image_of_mode(mode)
    back = Picture.from_image(image).to_image()
    assert (back.mode, back.size) == (image.mode, image.size)
    if mode not in ("CMYK", "YCbCr", "I;16"):
        assert same(back, image)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_a_mode_that_is_coded_as_rgb_keeps_its_looks(mode):
    image = image_of_mode(mode)
    back = Picture.from_image(image).to_image()
    difference = np.asarray(back.convert("RGB")).astype(int) - np.asarray(image.convert("RGB"))
    assert abs(difference).max() <= 3


def test_pure_black_ink_stays_pure_black_ink():
    image = Image.new("CMYK", (2, 2), (0, 0, 0, 200))
    assert Picture.from_image(image).to_image().getpixel((1, 1)) == (0, 0, 0, 200)


@pytest.mark.parametrize(("mode", "nearest"), [("La", "LA"), ("RGBa", "RGBA"), ("RGBX", "RGB")])
def test_a_mode_of_pillow_s_own_becomes_the_nearest(mode, nearest):
    assert Picture.from_image(image_of_mode(mode)).to_image().mode == nearest


@pytest.mark.parametrize("mode", ["F", "LAB"])
def test_pixels_that_are_not_levels_are_refused(mode):
    with pytest.raises(InputError, match=mode):
        Picture.from_image(Image.new(mode, (2, 2)))


def test_wide_integers_are_16_bits_or_refused():
    image = Image.fromarray(np.array([[0, 65535]], np.int32))
    assert Picture.from_image(image).to_array().tolist() == [[0, 65535]]
    with pytest.raises(InputError, match="65535"):
        Picture.from_image(Image.fromarray(np.array([[0, 65536]], np.int32)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_an_array_comes_back_as_it_was(channels, dtype):
    array = gradient(5, 7, channels, dtype)
    back = Picture.from_array(array).to_array()
    assert back.dtype == dtype
    assert np.array_equal(back, array[:, :, 0] if channels == 1 else array)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2)),
        np.zeros((2, 2, 5), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 2, 3), np.uint8),
    ],
    ids=["float", "5 channels", "1-D", "empty"],
)
def test_an_array_that_is_no_image_is_refused(array):
    with pytest.raises(UsageError):
        Picture.from_array(array)


@pytest.mark.parametrize("mode", ["P", "P+alpha", "PA"])
def test_pixels_that_moved_a_little_snap_to_their_palette_entry(mode):
    image = image_of_mode(mode)
    picture = Picture.from_image(image)
    levels = np.random.default_rng(0).integers(0, 3, picture.colour.shape)
    moved = Picture(
        picture.mode,
        np.clip(picture.colour.astype(int) + levels - 1, 0, 255).astype(np.uint8),
        picture.alpha,
        picture.palette,
    )
    assert same(moved.to_image(), image)


def test_a_pixel_never_snaps_to_an_entry_of_another_opacity():
    palette = np.array([[10, 10, 10, 0], [200, 200, 200, 255]], np.uint8)
    near_the_clear_one = np.full((1, 1, 3), 11, np.uint8)
    picture = Picture("P", near_the_clear_one, np.full((1, 1), 255, np.uint8), palette)
    assert picture.to_image().convert("RGBA").getpixel((0, 0)) == (200, 200, 200, 255)


def test_a_visible_pixel_never_takes_the_transparent_colour():
    colour = np.array([[[9, 9, 9], [8, 8, 8]]], np.uint8)
    picture = Picture("RGB", colour, np.array([[255, 0]], np.uint8), key=(9, 9, 9))
    assert picture.to_array().tolist() == [[[8, 9, 9], [9, 9, 9]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_what_pillow_does(orientation):
    image = image_of_mode("RGBA", 3, 2)
    methods = (
        None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180,
        Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270,
        Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
    )  # fmt: skip
    method = methods[orientation - 1]
    wanted = image if method is None else image.transpose(method)
    assert same(Picture.from_image(image).turned(orientation).to_image(), wanted)


def test_colours_of_unlike_pictures_are_compared_at_the_finer_of_both():
    grey = Picture.from_array(np.full((1, 1), 128, np.uint8))
    deep = Picture.from_array(np.full((1, 1, 4), 7, np.uint16))
    a, b = grey.alike(deep)
    assert a.tolist() == [[[128 * 257] * 3]]
    assert b.tolist() == [[[7] * 3]]

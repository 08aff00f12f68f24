import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from codec.errors import BitstreamError
from codec.io.metadata import join_texts, split_texts, upright_exif, upright_xmp

ORIENTATION = 0x0112
KEYS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=79)
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.dictionaries(KEYS, VALUES))
def test_texts_come_back(texts):
    assert split_texts(join_texts(texts)) == texts


@given(st.binary(max_size=40))
def test_any_bytes_are_texts_or_refused(payload):
    try:
        texts = split_texts(payload)
    except BitstreamError:
        return
    assert all(1 <= len(key) <= 79 for key in texts)


@pytest.mark.parametrize("payload", [b"a\0", b"a\0b", b"\0b\0", b"a\0\xff\0", b"a\nb\0c\0"])
def test_damaged_texts_are_refused(payload):
    with pytest.raises(BitstreamError, match="text"):
        split_texts(payload)


def test_a_key_that_no_png_can_hold_is_left_out():
    assert join_texts({"x" * 80: "long", "": "none", "ok": "kept"}) == b"ok\0kept\0"


@pytest.mark.parametrize("endian", ["<", ">"])
def test_only_the_orientation_of_exif_changes(endian):
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F] = "A camera"
    exif[ORIENTATION] = 6
    exif[0x0131] = "A program"
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    upright = upright_exif(block)
    back = Image.Exif()
    back.load(upright)
    assert dict(back) == {0x010F: "A camera", ORIENTATION: 1, 0x0131: "A program"}
    assert sum(a != b for a, b in zip(block, upright, strict=True)) == 1


@given(st.binary(max_size=64), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]))
def test_exif_that_cannot_be_followed_keeps_its_length(tail, head):
    assert len(upright_exif(head + tail)) == len(head + tail)


def test_the_orientation_of_xmp_says_upright():
    for form in (b'tiff:Orientation="%c"', b"tiff:Orientation='%c'", b"<tiff:Orientation>%c</"):
        assert upright_xmp(b"<x " + form % b"6") == b"<x " + form % b"1"

"""Image files of every mode and many formats, made here; odd ones where they are present."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

ODD = sorted(
    path for path in (Path(__file__).parents[3] / "shared/data/odd").rglob("*") if path.is_file()
)
"""Odd image files by others, where this machine has them."""
SIZES = ((1, 1), (1, 37), (53, 1), (16, 16), (17, 31))


def gradient(height, width, channels, dtype=np.uint8, seed=1):
    """A picture with slopes and noise: `(height, width, channels)`."""
    peak = np.iinfo(dtype).max
    rows, columns = np.mgrid[:height, :width]
    slope = (rows + 2 * columns)[:, :, None] * peak // max(1, 3 * (height + width))
    noise = np.random.default_rng(seed).integers(0, peak // 3, (height, width, channels))
    return ((slope + noise + np.arange(channels) * peak // 9) % (peak + 1)).astype(dtype)


def image_of_mode(mode, width=23, height=19):
    """An image whose mode has every feature the mode can have."""
    if mode == "1":
        return Image.fromarray(gradient(height, width, 1)[:, :, 0]).convert("1")
    if mode == "I;16":
        return Image.fromarray(gradient(height, width, 1, np.uint16)[:, :, 0])
    if mode in ("P", "P+alpha", "P+index", "PA"):
        image = Image.fromarray(gradient(height, width, 1)[:, :, 0] // 8)
        image.putpalette(np.random.default_rng(2).integers(0, 256, 96, np.uint8).tobytes())
        if mode == "P+alpha":
            image.info["transparency"] = bytes(range(0, 256, 8))
        elif mode == "P+index":
            image.info["transparency"] = 3
        elif mode == "PA":
            alpha = Image.fromarray(gradient(height, width, 1, seed=5)[:, :, 0])
            whole = Image.new("PA", image.size)
            whole.putpalette(image.getpalette())
            whole.paste(image)
            whole.putalpha(alpha)
            return whole
        return image
    if mode in ("L+key", "RGB+key"):
        image = image_of_mode(mode[:-4], width, height)
        image.info["transparency"] = image.getpixel((2, 3))
        return image
    bands = Image.getmodebands(mode)
    planes = gradient(height, width, bands)
    return Image.frombytes(mode, (width, height), planes.tobytes())


FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "TGA")
MODES = ("1", "L", "LA", "RGB", "RGBA", "P", "P+alpha", "P+index", "PA", "CMYK", "YCbCr")
KEYED = ("L+key", "RGB+key")


def file_of(image, name="PNG", **options):
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def deep_tiff(samples):
    """A 16-bit TIFF file by the book: one strip, not compressed."""
    height, width, channels = samples.shape
    pixels = samples.astype("<u2").tobytes()
    tags = (
        (256, 1, width), (257, 1, height), (258, channels, 8), (259, 1, 1), (262, 1, 2),
        (273, 1, 8 + 2 * channels), (277, 1, channels), (278, 1, height), (279, 1, len(pixels)),
    )  # fmt: skip
    body = struct.pack("<H", 16) * channels + pixels
    head = b"II*\0" + struct.pack("<I", 8 + len(body))
    directory = b"".join(struct.pack("<HHII", tag, 4 - (tag == 258), *rest) for tag, *rest in tags)
    return head + body + struct.pack("<H", len(tags)) + directory + bytes(4)


def deep_png(samples, key=None):
    """A 16-bit PNG file by the book: no filter, one IDAT."""
    height, width, channels = samples.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    raw = samples.astype(">u2").tobytes()
    line = len(raw) // height
    rows = b"".join(b"\0" + raw[at : at + line] for at in range(0, len(raw), line))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))]
    if key is not None:
        chunks.append((b"tRNS", np.array(key, ">u2").tobytes()))
    return png_of(*chunks, (b"IDAT", zlib.compress(rows)))


def png_of(*chunks):
    """A PNG file of these chunks and its end."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in (*chunks, (b"IEND", b""))
    )


def odd_files():
    """Names and bytes: every format with its commonest mode, and `ODD`."""
    made = {f"made/{name}": file_of(image_of_mode("L"), name) for name in FORMATS}
    made["made/deep.png"] = deep_png(gradient(5, 6, 4, np.uint16))
    made["made/deep.tif"] = deep_tiff(gradient(5, 6, 3, np.uint16))
    made["made/cut.png"] = made["made/PNG"][:-20]
    return made | {f"{path.parent.name}/{path.name}": path.read_bytes() for path in ODD}

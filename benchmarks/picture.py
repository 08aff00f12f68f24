"""Draw the README's picture: a photograph, our file, and a JPEG of the same size.

    python benchmarks/picture.py docs/comparison.png

The photograph is scikit-image's astronaut (NASA, public domain).
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage import data

import codec
from codec.metrics import psnr

CROP = (96, 0, 352, 256)
ZOOM = 2


def jpeg_of_size(image: Image.Image, size: int) -> bytes:
    """The worst JPEG of at least `size` bytes, or the largest there is."""
    buffer = io.BytesIO()
    for quality in range(1, 96):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True)
        if len(buffer.getvalue()) >= size:
            break
    return buffer.getvalue()


def main() -> None:
    """Write the picture to the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--quality", type=int, default=31)
    options = parser.parse_args()
    photo = Image.fromarray(data.astronaut())
    ours = codec.encode(photo, quality=options.quality)
    jpeg = jpeg_of_size(photo, len(ours))
    panels = [("original", photo, None), ("codec", codec.decode(ours), len(ours))]
    panels.append(("JPEG", Image.open(io.BytesIO(jpeg)), len(jpeg)))

    side = ZOOM * (CROP[2] - CROP[0])
    sheet = Image.new("RGB", (side * len(panels), side + 28), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for column, (title, image, size) in enumerate(panels):
        crop = image.convert("RGB").crop(CROP).resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(crop, (column * side, 28))
        if size is not None:
            quality = psnr(np.asarray(photo), np.asarray(image.convert("RGB")))
            title = f"{title}: {size} bytes, {quality:.1f} dB"
        draw.text((column * side + 8, 5), title, fill="black", font=font)
    sheet.save(options.output, optimize=True)


if __name__ == "__main__":
    main()

"""Networks trained with CompressAI, coded our way and without it. Knows no checkpoint file."""

from codec.models.compressai.codec import CompressAI

__all__ = ["CompressAI"]

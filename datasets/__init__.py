"""Training data: packs of photographs. Knows no model."""

from codec.datasets.photos import read_photos

__all__ = ["read_photos"]

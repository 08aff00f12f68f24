"""Gaussians of a scene: projected, drawn, drawn again with gradients, coded."""

from codec.models.gauss.codec import Gauss

__all__ = ["Gauss"]

"""Moving Gaussians: a codec of scenes, and a rasteriser of them."""

from codec.models.gauss.codec import Gauss

__all__ = ["Gauss"]

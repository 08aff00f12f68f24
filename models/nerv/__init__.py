"""Family 5, `nerv`: a group of pictures as the weights of a network that draws its frames."""

from codec.models.nerv.codec import Nerv

__all__ = ["Nerv"]

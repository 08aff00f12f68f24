"""Overfitted pictures: latents and tiny networks of one picture, and their coding."""

from codec.models.inr.codec import Inr

__all__ = ["Inr"]

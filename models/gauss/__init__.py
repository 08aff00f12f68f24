"""Gaussians of a scene: projected, drawn, and drawn again with gradients."""

"""Overfitted pictures: latents and tiny networks of one picture, and their coding."""

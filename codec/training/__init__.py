"""Training: a recipe in, weights out, in as many pieces as it takes. Knows `iscs` and `umgm`."""

from codec.training.loop import run

__all__ = ["run"]

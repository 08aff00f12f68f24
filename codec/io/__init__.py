"""Media in and out: what a file holds besides its pixels, and back. Knows no model.

The parts are imported by name (`codec.io.files`, `codec.io.picture`, ...), so that reading bytes
does not import numpy.
"""

__all__: list[str] = []

"""`iscs` that looks at pictures of a dictionary: what they show need not be sent again."""

from codec.models.clc.codec import Clc
from codec.models.clc.network import ClcConfig, ClcNetwork

__all__ = ["Clc", "ClcConfig", "ClcNetwork"]

"""Vector-quantised images: a multivariate Gaussian mixture in a cascade of three resolutions."""

from codec.models.umgm.codec import Umgm
from codec.models.umgm.network import UmgmConfig, UmgmNetwork

__all__ = ["Umgm", "UmgmConfig", "UmgmNetwork"]

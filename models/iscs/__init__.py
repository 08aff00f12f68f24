"""The default image family: a hyperprior autoencoder with all its work at strides 8 and 16."""

from codec.models.iscs.codec import Iscs
from codec.models.iscs.network import IscsConfig, IscsNetwork

__all__ = ["Iscs", "IscsConfig", "IscsNetwork"]

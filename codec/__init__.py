"""Learned compression as files: `encode` and `decode` images, videos and scenes.

    >>> import codec
    >>> codec.__version__
    '0.1.0'

Everything heavy loads on first use: `import codec` alone does not import torch.
"""

from typing import TYPE_CHECKING

from codec.errors import BitstreamError as BitstreamError
from codec.errors import CodecError as CodecError
from codec.errors import InputError as InputError
from codec.errors import LimitError as LimitError
from codec.errors import ModelError as ModelError
from codec.errors import UsageError as UsageError

if TYPE_CHECKING:
    from codec.api import decode as decode
    from codec.api import decode_batch as decode_batch
    from codec.api import decode_scene as decode_scene
    from codec.api import decode_video as decode_video
    from codec.api import encode as encode
    from codec.api import encode_scene as encode_scene
    from codec.api import info as info
    from codec.api import load_model as load_model

__all__ = [
    "BitstreamError",
    "CodecError",
    "InputError",
    "LimitError",
    "ModelError",
    "UsageError",
    "__version__",
    "decode",
    "decode_batch",
    "decode_scene",
    "decode_video",
    "encode",
    "encode_scene",
    "info",
    "load_model",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Loading `codec.api` pulls in the models; `import codec.bitstream` must stay cheap (PEP 562).
    if name in __all__:
        from codec import api

        return getattr(api, name)
    raise AttributeError(f"module 'codec' has no attribute {name!r}")

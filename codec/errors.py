"""Every error that is the fault of data or caller, as one tree. Knows nothing else of the package.

    CodecError(ValueError)      exit code 1 if it is raised bare, which no code here does
    ├── UsageError              2  the call makes no sense: a bad option, a wrong combination
    ├── InputError              3  the input is not readable media
    ├── BitstreamError          4  the stream is damaged, truncated or not ours
    ├── ModelError              5  weights are missing, altered or of another model
    └── LimitError              6  a limit is exceeded

Anything else that escapes from the package is a bug of ours. A message has four parts where they
apply: what, wanted, got, where.
"""

__all__ = [
    "BitstreamError",
    "CodecError",
    "InputError",
    "LimitError",
    "ModelError",
    "UsageError",
]


class CodecError(ValueError):
    """The data or the call is at fault, not the package."""

    exit_code = 1


class UsageError(CodecError):
    """The call makes no sense: a bad value or a wrong combination of options."""

    exit_code = 2


class InputError(CodecError):
    """The input is not readable media."""

    exit_code = 3


class BitstreamError(CodecError):
    """The stream is damaged, truncated or not ours."""

    exit_code = 4


class ModelError(CodecError):
    """Weights are missing, altered, or do not belong to the stream."""

    exit_code = 5


class LimitError(CodecError):
    """A limit is exceeded; the message says which and how to raise it."""

    exit_code = 6

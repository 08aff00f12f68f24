"""Integers to bytes and back: tables, a range coder, interleaved rANS. Knows no network, no file.

Tables, gaussian_tables, ..._pmf frozen integer tables, made when weights are exported
Encoder, Decoder, BitCounter    the three directions of one walk; `open` gives a stream
Silence                         a decoder of nothing, where a file is cut
Method                          RANGE for few symbols or wide tables, RANS for many symbols
"""

from codec.entropy.coder import (
    AbstractCoder,
    BitCounter,
    Decoder,
    Encoder,
    Method,
    Silence,
    code_lengths,
    prepare,
)
from codec.entropy.stream import AbstractCausalModel, AbstractStream
from codec.entropy.tables import IntArray, Tables, gaussian_pmf, gaussian_tables

__all__ = [
    "AbstractCausalModel",
    "AbstractCoder",
    "AbstractStream",
    "BitCounter",
    "Decoder",
    "Encoder",
    "IntArray",
    "Method",
    "Silence",
    "Tables",
    "code_lengths",
    "gaussian_pmf",
    "gaussian_tables",
    "prepare",
]

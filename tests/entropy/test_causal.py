"""Streams coded by a model that predicts each symbol from those before it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.entropy import (
    AbstractCausalModel,
    BitCounter,
    Decoder,
    Encoder,
    Method,
    Silence,
    Tables,
)
from codec.errors import BitstreamError

FLAT = Tables.from_pmfs([np.array([1.0, 1.0, 1.0, 0.01])], [-1], precision=12)


class Repeating(AbstractCausalModel):
    """Symbols 0..3, of which three quarters repeat the one before, or 0 the first time."""

    def __init__(self, count):
        self.count = count

    @staticmethod
    def interval(symbol, before):
        """Start and frequency: the repeated one has three quarters, the others 1/12 each."""
        freqs = [49152 if s == before else 5461 + (s == (before + 1) % 4) for s in range(4)]
        return sum(freqs[:symbol]), freqs[symbol]

    def operations(self, symbols):
        if symbols.min(initial=0) < 0 or symbols.max(initial=0) > 3:
            raise ValueError("symbols: want 0..3")
        pairs = zip(symbols.tolist(), [0, *symbols.tolist()], strict=False)
        intervals = [self.interval(symbol, before) for symbol, before in pairs]
        return np.array([start << 16 | freq for start, freq in intervals], np.uint32)

    def decode(self, words, at, states, k):
        found = []
        for before in range(self.count):
            before = found[-1] if found else 0
            state, lane = int(states[k % len(states)]), k % len(states)
            slot = state % 2**16
            symbol = max(s for s in range(4) if self.interval(s, before)[0] <= slot)
            start, freq = self.interval(symbol, before)
            state = freq * (state >> 16) + slot - start
            if state < 2**24:
                state = state << 16 | int(words[min(at, len(words) - 1)])
                at += 1
            states[lane] = state
            found.append(symbol)
            k += 1
        return np.array(found, np.int32), at, k


def walk(coder, symbols, plain):
    """A call of tables, a causal one, and one of tables again."""
    stream = coder.open("y", Method.RANS)
    known = symbols is not None
    indexes = np.zeros(len(plain[0]), np.int32)
    model = Repeating(plain[1])
    return [
        stream.code(plain[0] if known else None, FLAT, indexes),
        stream.code_causal(symbols, model),
        stream.code(plain[0] if known else None, FLAT, indexes),
    ]


SYMBOLS = st.lists(st.integers(0, 3), max_size=60).map(lambda found: np.array(found, np.int32))
AROUND = st.lists(st.sampled_from([-1, 0, 1, 1, 40]), max_size=5).map(
    lambda found: np.array(found, np.int32)
)


@given(SYMBOLS, AROUND)
def test_a_causal_call_among_others_comes_back_and_costs_what_is_counted(symbols, around):
    encoder, counter = Encoder(), BitCounter()
    plain = (around, len(symbols))
    expected = walk(encoder, symbols, plain)
    walk(counter, symbols, plain)
    stream = encoder.finish()
    decoder = Decoder(stream)
    for known, found in zip(expected, walk(decoder, None, plain), strict=True):
        np.testing.assert_array_equal(known, found)
    decoder.finish()
    assert counter.bits - 1 <= 8 * len(stream["y"]) <= counter.bits + 8 * 6


def test_lanes_go_on_from_one_call_to_the_next(monkeypatch):
    monkeypatch.setattr("codec.entropy.rans.BYTES_PER_LANE", 4)
    symbols = np.arange(401, dtype=np.int32) % 4
    plain = (np.zeros(3, np.int32), len(symbols))
    encoder = Encoder()
    walk(encoder, symbols, plain)
    stream = encoder.finish()
    assert stream["y"][0] > 0
    decoder = Decoder(stream)
    np.testing.assert_array_equal(symbols, walk(decoder, None, plain)[1])
    decoder.finish()


def test_repeating_symbols_cost_what_their_model_says():
    counter = BitCounter()
    counter.open("y", Method.RANS).code_causal(np.zeros(100, np.int32), Repeating(100))
    assert counter.bits == pytest.approx(100 * np.log2(4 / 3))


def test_silence_is_as_many_zeros_as_the_model_counts():
    found = Silence().open("y", Method.RANS).code_causal(None, Repeating(7))
    np.testing.assert_array_equal(np.zeros(7, np.int32), found)


@pytest.mark.parametrize("coder", [Encoder(), Decoder({"y": b"\x80"})])
def test_the_range_coder_has_no_causal_calls(coder):
    with pytest.raises(ValueError, match="only rANS"):
        coder.open("y", Method.RANGE).code_causal(np.zeros(1, np.int32), Repeating(1))


@pytest.mark.parametrize("coder", [Encoder, BitCounter])
@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        (None, "wants them"),
        (np.zeros(2, np.int32), "want 3 of int32"),
        (np.zeros(3, np.int64), "want 3 of int32"),
        (np.full(3, 4, np.int32), r"0\.\.3"),
    ],
)
def test_symbols_that_are_not_the_models_are_refused(coder, symbols, message):
    with pytest.raises(ValueError, match=message):
        coder().open("y", Method.RANS).code_causal(symbols, Repeating(3))


def test_a_stream_without_bytes_has_no_causal_symbols():
    with pytest.raises(BitstreamError, match="empty, 3 symbols"):
        Decoder({"y": b""}).open("y", Method.RANS).code_causal(None, Repeating(3))


def test_a_causal_call_beyond_the_last_word_is_refused():
    symbols = np.arange(400, dtype=np.int32) % 4
    encoder = Encoder()
    encoder.open("y", Method.RANS).code_causal(symbols, Repeating(400))
    stream = encoder.finish()["y"]
    with pytest.raises(BitstreamError, match="truncated, 2 bytes more"):
        Decoder({"y": stream[:-2]}).open("y", Method.RANS).code_causal(None, Repeating(400))


def test_a_causal_call_that_is_too_short_is_told_at_the_end():
    symbols = np.arange(400, dtype=np.int32) % 4
    encoder = Encoder()
    encoder.open("y", Method.RANS).code_causal(symbols, Repeating(400))
    decoder = Decoder(encoder.finish())
    decoder.open("y", Method.RANS).code_causal(None, Repeating(399))
    with pytest.raises(BitstreamError):
        decoder.finish()

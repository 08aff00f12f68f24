import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.special import ndtr

from codec.entropy import BitCounter, Decoder, Encoder, Method, Tables, gaussian_tables
from codec.entropy.escapes import check_lengths
from codec.errors import BitstreamError
from tests.entropy import reference
from tests.entropy.strategies import calls, tables

ROOT = Path(__file__).parents[2]
SCALES = np.exp(np.linspace(np.log(0.11), np.log(64), 64))
BOTH = pytest.mark.parametrize("method", list(Method))
PLAIN = Tables(
    np.array([[0, 1200, 3600, 4092, 4096]], np.uint32),
    np.full(1, -1, np.int32),
    np.full(1, 4, np.int32),
    12,
)
WIDE = Tables(
    np.array(
        [[0, 1000, 9000, 56000, 64000, 65000, 65536], [0, 60000, 65000, *[65536] * 4]], np.uint32
    ),
    np.array([-2, 0], np.int32),
    np.array([6, 3], np.int32),
    16,
)
SYMBOLS = np.array([0, 1, -1, 0, 0, 5, -900000], np.int32)
INDEXES = np.zeros(7, np.int32)


def walk(coder, method, given_calls, known=True):
    stream = coder.open("y", method)
    return [stream.code(s if known else None, t, i) for t, i, s in given_calls]


def encoded(method, given_calls):
    encoder = Encoder()
    walk(encoder, method, given_calls)
    return encoder.finish()["y"]


def decoded(method, stream, given_calls):
    decoder = Decoder({"y": stream})
    found = walk(decoder, method, given_calls, known=False)
    decoder.finish()
    return found


def counted(method, given_calls):
    counter = BitCounter()
    walk(counter, method, given_calls)
    assert counter.bits_of("y") == counter.bits
    return counter.bits


def million(scales=SCALES):
    generator = np.random.default_rng(5)
    indexes = generator.integers(0, len(scales), 10**6).astype(np.int32)
    symbols = np.rint(generator.normal(0, scales[indexes])).astype(np.int32)
    return gaussian_tables(scales, 16), indexes, symbols


# ---- inverse


@BOTH
@given(given_calls=calls())
def test_decoding_inverts_encoding(method, given_calls):
    found = decoded(method, encoded(method, given_calls), given_calls)
    for (_, _, symbols), block in zip(given_calls, found, strict=True):
        assert block.dtype == np.int32
        assert block.tolist() == symbols.tolist()


@given(given_calls=calls(precisions=st.integers(17, 24)))
def test_the_range_coder_takes_tables_of_24_bits(given_calls):
    found = decoded(Method.RANGE, encoded(Method.RANGE, given_calls), given_calls)
    assert [b.tolist() for b in found] == [s.tolist() for _, _, s in given_calls]


@BOTH
def test_every_direction_returns_the_symbols(method):
    for coder in (
        Encoder(),
        BitCounter(),
        Decoder({"y": encoded(method, [(PLAIN, INDEXES, SYMBOLS)])}),
    ):
        assert coder.open("y", method).code(SYMBOLS, PLAIN, INDEXES).tolist() == SYMBOLS.tolist()


@BOTH
@pytest.mark.parametrize("symbol", [-(2**20), 2**20, -2, 2])
def test_symbols_far_outside_the_support_survive(method, symbol):
    call = PLAIN, INDEXES[:1], np.array([symbol], np.int32)
    assert decoded(method, encoded(method, [call]), [call])[0].tolist() == [symbol]


@BOTH
def test_a_million_symbols_survive(method):
    call = million()
    assert np.array_equal(decoded(method, encoded(method, [call]), [call])[0], call[2])


# ---- the slow reference


@given(given_calls=calls(), lanes_log2=st.sampled_from([0, 1, 3, 10]))
def test_rans_reads_what_the_reference_writes(given_calls, lanes_log2):
    stream = reference.rans_encode(given_calls, lanes_log2)
    found = decoded(Method.RANS, stream, given_calls)
    assert [b.tolist() for b in found] == [s.tolist() for _, _, s in given_calls]


@given(given_calls=calls())
def test_rans_writes_what_the_reference_writes(given_calls):
    assert encoded(Method.RANS, given_calls) == reference.rans_encode(given_calls, 0)


def test_rans_writes_what_the_reference_writes_on_many_lanes():
    call = tuple(part if k == 0 else part[:40000] for k, part in enumerate(million()))
    stream = encoded(Method.RANS, [call])
    assert stream[0] == 1
    assert stream == reference.rans_encode([call], 1)


@given(given_calls=calls(precisions=st.integers(4, 24)))
def test_the_range_coder_writes_what_the_reference_writes(given_calls):
    assert encoded(Method.RANGE, given_calls) == reference.range_encode(given_calls)


@pytest.mark.parametrize("symbols", [[0, 2, -2, -1, -1], [0, -2, -2, -1, -1]])
def test_the_end_of_a_range_stream_stays_in_the_interval(symbols):
    # One stream in thousands has its next round number just above the interval; these do.
    call = WIDE, np.zeros(5, np.int32), np.array(symbols, np.int32)
    assert encoded(Method.RANGE, [call]) == reference.range_encode([call])
    assert decoded(Method.RANGE, encoded(Method.RANGE, [call]), [call])[0].tolist() == symbols


@BOTH
@given(given_calls=calls(), stream=st.binary(max_size=60), ours=st.booleans(), flip=st.integers(0))
@example(given_calls=[(PLAIN, INDEXES, SYMBOLS)], stream=b"\xff" * 20, ours=False, flip=0)
@example(given_calls=[(PLAIN, INDEXES, SYMBOLS)], stream=b"\0", ours=False, flip=0)
def test_any_bytes_are_symbols_or_refused_as_the_reference_does(
    method, given_calls, stream, ours, flip
):
    if ours:
        damaged = bytearray(encoded(method, given_calls))
        assume(damaged)
        damaged[flip // 8 % len(damaged)] ^= 1 << flip % 8
        stream = bytes(damaged)
    try:
        found = [b.tolist() for b in decoded(method, stream, given_calls)]
    except BitstreamError:
        found = None
    if method is Method.RANS and not well_formed(stream):
        assert found is None
        return
    decode = reference.range_decode if method is Method.RANGE else reference.rans_decode
    try:
        wanted = decode(stream, given_calls)
    except reference.RefusedError:
        wanted = None
    assert found == wanted


def well_formed(stream):
    """Whether a rANS stream has as many bytes as its lanes want, and states in their range."""
    if not stream:
        return True
    head = 1 + 5 * 2 ** stream[0]
    if stream[0] > 10 or len(stream) < head or (len(stream) - head) % 2:
        return False
    states = (stream[at : at + 5] for at in range(1, head, 5))
    return all(int.from_bytes(state, "little") >= 2**24 for state in states)


# ---- what is accepted is what an encoder writes


@given(given_calls=calls())
def test_every_cut_of_a_rans_stream_is_refused(given_calls):
    stream = encoded(Method.RANS, given_calls)
    for length in range(len(stream)):
        with pytest.raises(BitstreamError):  # and at once: nothing more is computed from garbage
            walk(Decoder({"y": stream[:length]}), Method.RANS, given_calls, known=False)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ("0b" + 4096 * "0000000001", "lanes"),
        ("01" + "0000000001", "want 11 bytes"),
        ("00" + "0000000001" + "00", "even"),
        ("00" + "ffffff0000", "state"),
    ],
    ids=["too many lanes", "a lane missing", "half a word", "a state too low"],
)
def test_a_rans_stream_that_begins_wrong_is_refused(stream, message):
    with pytest.raises(BitstreamError, match=message):
        Decoder({"y": bytes.fromhex(stream)}).open("y", Method.RANS)


@given(given_calls=calls())
def test_a_range_stream_is_accepted_only_as_the_bytes_of_its_symbols(given_calls):
    stream = encoded(Method.RANGE, given_calls)
    for length in range(len(stream)):
        try:
            found = decoded(Method.RANGE, stream[:length], given_calls)
        except BitstreamError:
            continue
        again = [(t, i, s) for (t, i, _), s in zip(given_calls, found, strict=True)]
        assert encoded(Method.RANGE, again) == stream[:length]


@BOTH
@pytest.mark.parametrize("more", [b"\0", b"\0\0", b"\0\0\0\0", b"\1\2\3\4\5\6\7\x08"])
@pytest.mark.parametrize("symbols", [SYMBOLS, SYMBOLS[:0]], ids=["some", "none"])
def test_bytes_left_over_are_refused(method, more, symbols):
    call = PLAIN, INDEXES[: len(symbols)], symbols
    with pytest.raises(BitstreamError):
        decoded(method, encoded(method, [call]) + more, [call])


@BOTH
def test_symbols_that_are_not_there_are_refused(method):
    once = PLAIN, INDEXES, SYMBOLS
    with pytest.raises(BitstreamError):
        decoded(method, encoded(method, [once]), [once] * 5)


@BOTH
def test_symbols_that_are_not_asked_for_are_refused(method):
    once = PLAIN, INDEXES, SYMBOLS
    with pytest.raises(BitstreamError):
        decoded(method, encoded(method, [once] * 5), [once])


def test_an_escape_of_more_than_22_bits_is_refused():
    check_lengths(np.array([22, 0]))
    with pytest.raises(BitstreamError, match="23"):
        check_lengths(np.array([22, 23]))


@BOTH
@given(given_calls=calls(), stream=st.binary(max_size=40))
def test_no_symbol_leaves_its_range(method, given_calls, stream):
    try:
        found = decoded(method, stream, given_calls)
    except BitstreamError:
        return
    assert all(np.abs(block).max(initial=0) <= 2**20 for block in found)


# ---- rate


@given(given_calls=calls())
def test_the_counter_adds_up_frequencies_and_escapes(given_calls):
    bits = 0.0
    for call in given_calls:
        for _, freq in reference.operations(call, 16, by_table=False, widest=16):
            bits += 16 - math.log2(freq)
    assert counted(Method.RANS, given_calls) == pytest.approx(bits)


@given(given_calls=calls())
def test_a_range_stream_is_at_most_three_bytes_above_the_count(given_calls):
    assert 8 * len(encoded(Method.RANGE, given_calls)) <= counted(Method.RANGE, given_calls) + 24


@given(given_calls=calls())
def test_a_rans_stream_is_at_most_six_bytes_above_the_count(given_calls):
    size, bits = 8 * len(encoded(Method.RANS, given_calls)), counted(Method.RANS, given_calls)
    assert bits <= size + 1e-3
    assert size <= bits + 48


@BOTH
@pytest.mark.parametrize("scales", [SCALES, SCALES[:20]], ids=["all scales", "small scales"])
def test_a_million_symbols_take_less_than_a_thousandth_more_than_their_gaussians(method, scales):
    call = million(scales)
    distance, scale = np.abs(call[2]), scales[call[1]]
    ideal = -np.log2(ndtr((0.5 - distance) / scale) - ndtr((-0.5 - distance) / scale)).sum()
    assert 8 * len(encoded(method, [call])) < 1.001 * ideal


@BOTH
def test_no_symbols_are_no_bytes(method):
    assert encoded(method, [(PLAIN, INDEXES[:0], SYMBOLS[:0])]) == b""
    assert decoded(method, b"", []) == []


# ---- goldens: these bytes are the format


@pytest.mark.parametrize(
    ("method", "stream"),
    [
        (
            Method.RANGE,
            "d319cd18861cc6abc0fffffb7fcf1ac0c9ad2ffffea9a56cbda344b6225ca884"
            "01caca622d2f7c2602dca122ac0e1b",
        ),
        (
            Method.RANS,
            "00dab31e0200d231deff3ef7dcfef8fde7ff93fe79fee6ff63fc93fe8ffec4ff"
            "63204320211c42146308c8189226b10f7f400070",
        ),
    ],
    ids=["range", "rans"],
)
def test_the_bytes_of_a_stream_never_change(method, stream):
    first = PLAIN, INDEXES, SYMBOLS
    second = WIDE, np.arange(24, dtype=np.int32) % 2, np.arange(-12, 12, dtype=np.int32)
    assert encoded(method, [first, second]).hex() == stream
    found = decoded(method, bytes.fromhex(stream), [first, second])
    assert [b.tolist() for b in found] == [first[2].tolist(), second[2].tolist()]


# ---- how it is called


def test_streams_come_in_the_order_they_were_opened():
    encoder = Encoder()
    for name in ("z", "y", "a"):
        encoder.open(name, Method.RANS)
    assert list(encoder.finish()) == ["z", "y", "a"]


def test_bits_are_counted_stream_by_stream():
    counter = BitCounter()
    for name in ("z", "y"):
        counter.open(name, Method.RANGE).code(SYMBOLS, PLAIN, INDEXES)
    assert counter.bits_of("z") == counter.bits_of("y") == counter.bits / 2 > 0


def test_a_stream_that_is_missing_is_refused():
    with pytest.raises(BitstreamError, match="'z'"):
        Decoder({"y": b""}).open("z", Method.RANS)


def test_a_stream_that_nobody_read_is_refused():
    decoder = Decoder({"y": b"", "z": b""})
    decoder.open("y", Method.RANS)
    with pytest.raises(BitstreamError, match="'z'"):
        decoder.finish()


@pytest.mark.parametrize("make", [Encoder, BitCounter, lambda: Decoder({"y": b""})])
def test_a_stream_is_opened_once(make):
    coder = make()
    coder.open("y", Method.RANS)
    with pytest.raises(ValueError, match="before"):
        coder.open("y", Method.RANS)


@BOTH
@pytest.mark.parametrize("make", [Encoder, BitCounter, lambda: Decoder({"y": b""})])
@pytest.mark.parametrize(
    "indexes", [INDEXES - 1, INDEXES + 1, INDEXES.astype(np.int64), INDEXES.reshape(1, -1)], ids=str
)
def test_indexes_without_a_table_are_refused(method, make, indexes):
    with pytest.raises(ValueError, match="indexes: want"):
        make().open("y", method).code(SYMBOLS, PLAIN, indexes)


@BOTH
@pytest.mark.parametrize("make", [Encoder, BitCounter])
@pytest.mark.parametrize(
    "symbols",
    [
        None,
        SYMBOLS[:3],
        SYMBOLS.astype(np.int64),
        SYMBOLS + np.int32(2**20),
        SYMBOLS - np.int32(2**18),
    ],
    ids=str,
)
def test_symbols_that_cannot_be_coded_are_refused(method, make, symbols):
    with pytest.raises(ValueError, match="symbols: "):
        make().open("y", method).code(symbols, PLAIN, INDEXES)


@given(wide=tables(precisions=st.just(17)))
def test_rans_refuses_tables_of_17_bits(wide):
    for coder in (Encoder(), Decoder({"y": b""})):
        with pytest.raises(ValueError, match="16 bits"):
            coder.open("y", Method.RANS).code(SYMBOLS, wide, INDEXES)


# ---- what it costs to import


def test_importing_loads_neither_torch_nor_numba():
    code = (
        "import sys, codec.entropy; print(sorted({'torch', 'numba', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_rans_works_where_numba_may_not_write():
    code = "from codec.entropy import kernels; print(type(kernels.decode._cache).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "NUMBA_CACHE_DIR": "",
            "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator",
        },
    )
    assert done.stdout.strip() == "NullCache"


def test_no_read_leaves_a_rans_stream_however_short_it_is(tmp_path):
    code = """
import numpy as np
from codec.entropy import Decoder, Encoder, Method, gaussian_tables
from codec.errors import BitstreamError

tables, symbols = gaussian_tables(np.ones(1), 16), np.arange(-40, 40, dtype=np.int32)
encoder = Encoder()
encoder.open("y", Method.RANS).code(symbols, tables, np.zeros_like(symbols))
stream = encoder.finish()["y"]
for length in range(6, len(stream), 2):
    try:
        decoder = Decoder({"y": stream[:length]})
        decoder.open("y", Method.RANS).code(None, tables, np.zeros_like(symbols))
    except BitstreamError:
        print(length)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)},
    )
    assert len(done.stdout.split()) > 20


def test_prepare_loads_the_compiled_kernels() -> None:
    code = (
        "import sys, codec.entropy as e; before = 'numba' in sys.modules; e.prepare(); "
        "from codec.entropy import kernels as k; "
        "print(before, bool(k.encode.signatures), bool(k.decode.signatures))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["False", "True", "True"]

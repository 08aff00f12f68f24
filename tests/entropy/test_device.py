"""Laws of the decoder for a GPU, in Triton's interpreter, which conftest.py asks for."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.entropy import Decoder, Method
from codec.entropy.device import RansBatch, has_triton
from codec.entropy.rans import _encoded
from codec.errors import BitstreamError
from tests.entropy import reference
from tests.entropy.strategies import calls
from tests.entropy.test_coder import INDEXES, PLAIN, SYMBOLS, million

# With TRITON_INTERPRET=0 the same laws run on a GPU.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LANES = st.sampled_from([0, 1, 3, 5, 10])
FEW = settings(max_examples=15, deadline=None)  # each operation takes about a millisecond


def on_device(values):
    return torch.from_numpy(np.array(values, np.int32)).to(DEVICE)


def decoded(streams, batch_of_calls):
    """The symbols of each call, of all streams together; call k of every stream has one table."""
    batch = RansBatch(streams, DEVICE)
    found = []
    for tables, blocks in batch_of_calls:
        indexes = on_device(np.concatenate(blocks))
        found.append(batch.code(tables, indexes, [len(block) for block in blocks]).tolist())
    batch.finish()
    return found


def single(given_calls):
    return [(tables, [indexes]) for tables, indexes, _ in given_calls]


def on_cpu(stream, given_calls):
    """What the decoder of the CPU says: symbols, or None if it refuses."""
    try:
        decoder = Decoder({"y": stream})
        opened = decoder.open("y", Method.RANS)
        found = [opened.code(None, tables, indexes).tolist() for tables, indexes, _ in given_calls]
        decoder.finish()
    except BitstreamError:
        return None
    return found


@FEW
@given(given_calls=calls(), lanes_log2=LANES)
def test_it_reads_what_the_reference_writes(given_calls, lanes_log2):
    stream = reference.rans_encode(given_calls, lanes_log2)
    found = decoded([stream], single(given_calls))
    assert found == [symbols.tolist() for _, _, symbols in given_calls]


@FEW
@given(given_calls=calls(), lanes=st.lists(LANES, min_size=2, max_size=4), data=st.data())
def test_a_batch_is_its_streams_one_by_one(given_calls, lanes, data):
    # The streams share tables, not lengths: each has some first symbols of every call.
    streams, own = [], []
    for lanes_log2 in lanes:
        kept = []
        for tables, indexes, symbols in given_calls:
            count = data.draw(st.integers(0, len(symbols)))
            kept.append((tables, indexes[:count], symbols[:count]))
        streams.append(reference.rans_encode(kept, lanes_log2))
        own.append(kept)
    batch = [
        (call[0], [kept[number][1] for kept in own]) for number, call in enumerate(given_calls)
    ]
    wanted = [
        np.concatenate([kept[number][2] for kept in own]).tolist()
        for number in range(len(given_calls))
    ]
    assert decoded(streams, batch) == wanted


@FEW
@given(given_calls=calls(), lanes_log2=st.sampled_from([0, 1, 3]), data=st.data())
def test_any_bytes_are_the_symbols_of_the_cpu_or_refused_as_there(given_calls, lanes_log2, data):
    stream = bytearray(reference.rans_encode(given_calls, lanes_log2))
    if stream:
        at = data.draw(st.integers(0, len(stream) - 1))
        stream[at] ^= data.draw(st.integers(0, 255))
        del stream[data.draw(st.integers(max(0, len(stream) - 6), len(stream))) :]
    try:
        found = decoded([bytes(stream)], single(given_calls))
    except BitstreamError:
        found = None
    assert found == on_cpu(bytes(stream), given_calls)


def test_thousands_of_symbols_on_a_full_warp_are_those_of_the_cpu():
    tables, indexes, symbols = (
        part if number == 0 else part[:5000] for number, part in enumerate(million())
    )
    stream = reference.rans_encode([(tables, indexes, symbols)], 5)
    assert decoded([stream], [(tables, [indexes])])[0] == symbols.tolist()


@pytest.mark.parametrize("damaged", [0, 1])
@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (slice(-2), "truncated, 2 bytes more"),
        (slice(-1), "an even number more"),
        (slice(3), "want 11 bytes"),
        (slice(0), "empty"),
    ],
)
def test_one_damaged_stream_is_told_of_a_batch(damaged, cut, message):
    streams = [reference.rans_encode([(PLAIN, INDEXES, SYMBOLS)], 1)] * 2
    cuts = [cut, slice(None)] if damaged == 0 else [slice(None), cut]
    streams = [stream[: part.stop] for stream, part in zip(streams, cuts, strict=True)]
    with pytest.raises(BitstreamError, match=message):
        decoded(streams, [(PLAIN, [INDEXES, INDEXES])])


def test_words_that_are_missing_are_zeros_and_not_those_of_the_next_stream():
    # What is read instead says how many more are wanted, which is all that comes out of it.
    tables, indexes, symbols = (
        part if number == 0 else part[:400] for number, part in enumerate(million())
    )
    stream = reference.rans_encode([(tables, indexes, symbols)], 3)
    for cut in range(2, 60, 8):
        with pytest.raises(BitstreamError) as told:
            Decoder({"y": stream[:-cut]}).open("y", Method.RANS).code(None, tables, indexes)
        wanted = str(told.value).removeprefix("rANS stream: ")
        with pytest.raises(BitstreamError, match=f"stream 0: {wanted}"):
            decoded([stream[:-cut], stream], [(tables, [indexes, indexes])])


def test_words_left_over_are_refused():
    stream = reference.rans_encode([(PLAIN, INDEXES, SYMBOLS)], 0)
    with pytest.raises(BitstreamError, match="stream 1: 2 bytes are left over"):
        decoded([stream, stream + b"\0\0"], [(PLAIN, [INDEXES, INDEXES])])


def test_a_state_that_no_encoder_begins_with_is_refused():
    stream = bytearray(reference.rans_encode([(PLAIN, INDEXES[:1], SYMBOLS[:1])], 0))
    stream[1] ^= 1  # the same symbol, one place beside
    with pytest.raises(BitstreamError, match="stream 0: damaged"):
        decoded([bytes(stream)], [(PLAIN, [INDEXES[:1]])])


def test_an_escape_of_more_than_22_bits_is_refused():
    escape, length_23 = 4092 << 4 << 16 | 4 << 4, 23 << 11 << 16 | 1 << 11
    stream = _encoded([np.array([escape, length_23], np.uint32)], 0)
    with pytest.raises(BitstreamError, match="at most 22 bits, got 23"):
        decoded([stream], [(PLAIN, [INDEXES[:1]])])


@pytest.mark.parametrize(
    ("indexes", "counts", "message"),
    [
        ([0, 1], [2], r"want 0\.\.0, got 0\.\.1"),
        ([-1, 0], [2], r"want 0\.\.0, got -1\.\.0"),
        ([0, 0], [1], "want 1 that sum to 2"),
        ([0, 0], [1, 1], "want 1 that sum to 2"),
        ([0], [-1], "want 1 that sum to 1"),
    ],
)
def test_indexes_and_counts_that_do_not_fit_are_refused(indexes, counts, message):
    batch = RansBatch([reference.rans_encode([(PLAIN, INDEXES, SYMBOLS)], 0)], DEVICE)
    with pytest.raises(ValueError, match=message):
        batch.code(PLAIN, on_device(indexes), counts)


COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from codec.entropy import triton_kernels

batch = dict(words="*u16", limits="*i64", lanes="*i32", places="*i64", states="*i64", ks="*i64")
ends = dict(ends="*i64", out="*i32")
search = dict(entries="*i64", firsts="*i32", indexes="*i32")
for width in (1, 32, 1024):
    for name, own, sizes in (
        ("decode", search, {"WIDTH": width, "BUCKETS_LOG2": 10}),
        ("decode_bits", {"bits": "*i32"}, {"WIDTH": width}),
    ):
        types = {**batch, **own, **ends, **dict.fromkeys(sizes, "constexpr")}
        source = ASTSource(getattr(triton_kernels, name), types, constexprs=sizes)
        target = GPUTarget("cuda", 90, 32)
        made = compile(source, target=target, options={"num_warps": max(1, width // 32)})
        assert made.asm["cubin"]
"""


def test_the_kernels_compile_for_a_gpu_where_there_is_none(tmp_path):
    # The interpreter takes more than the compiler does.
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", COMPILE], cwd=root, env=environment, check=True)


def test_that_there_is_no_triton_is_said_once(monkeypatch, caplog):
    has_triton.cache_clear()
    monkeypatch.setattr("codec.entropy.device.find_spec", lambda name: None)
    try:
        assert [has_triton(), has_triton()] == [False, False]
        assert [record.name for record in caplog.records] == ["codec.entropy.device"]
        assert "no Triton" in caplog.text
    finally:
        has_triton.cache_clear()
    monkeypatch.undo()
    assert has_triton()


def test_importing_the_package_loads_no_triton():
    program = "import sys, codec.engine, codec.entropy.device, codec.viewing; print(*sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, check=True, capture_output=True, text=True
    )
    assert "triton" not in done.stdout.split()

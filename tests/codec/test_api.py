import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import codec
from codec import api
from codec.api import EncodeOptions, encode_picture
from codec.bitstream import Chunk, ChunkType, pack, unpack
from codec.errors import (
    BitstreamError,
    CodecError,
    InputError,
    LimitError,
    ModelError,
    UsageError,
)
from codec.io.picture import Picture
from codec.progress import Stopwatch
from tests.codec.images import KEYED, MODES, SIZES, file_of, gradient, image_of_mode
from tests.codec.toy import SEARCHES, make_zoo


@pytest.mark.parametrize("mode", [*MODES, *KEYED])
def test_an_image_comes_back_in_its_mode_and_size(mode, zoo):
    image = image_of_mode(mode)
    back = codec.decode(codec.encode(image, quality=100, model="toy", zoo=zoo), zoo=zoo)
    assert (back.mode, back.size) == (image.mode, image.size)
    if mode not in ("CMYK", "YCbCr"):
        assert back.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()


@pytest.mark.parametrize(("width", "height"), [*SIZES, (1040, 20), (33, 1025), (1024, 1024)])
def test_any_size_comes_back(width, height, zoo):
    array = gradient(height, width, 3)
    data = codec.encode(array, quality=100, model="toy", zoo=zoo)
    assert np.array_equal(np.asarray(codec.decode(data, zoo=zoo)), array)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_come_back_as_an_array(channels, zoo):
    array = gradient(20, 30, channels, np.uint16)
    back = codec.decode(codec.encode(array, quality=100, model="toy", zoo=zoo), zoo=zoo)
    assert back.dtype == np.uint16
    assert back.shape == (array.shape if channels > 1 else array.shape[:2])
    error = back.astype(int).reshape(array.shape) - array
    assert abs(error).max() <= 65535 / 255 / 2 + 1  # half a step of the toy at its best
    if channels in (2, 4):
        assert abs(error[:, :, -1]).max() == 0


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_tensor_comes_back_as_one(channels, zoo):
    array = gradient(20, 30, channels)
    x = torch.from_numpy(array).permute(2, 0, 1) / 255
    data = codec.encode(x, quality=100, model="toy", zoo=zoo)
    x_hat = codec.decode(data, as_tensor=True, zoo=zoo)
    assert x_hat.dtype == torch.float32
    assert torch.equal(x_hat, x)


def test_a_path_is_read_and_a_stream_s_path_too(tmp_path, zoo):
    image = image_of_mode("RGB")
    source, target = tmp_path / "a.png", tmp_path / "a.bin"
    source.write_bytes(file_of(image))
    target.write_bytes(codec.encode(source, quality=100, model="toy", zoo=zoo))
    assert codec.decode(target, zoo=zoo).tobytes() == image.tobytes()
    assert codec.decode(str(target), zoo=zoo).tobytes() == image.tobytes()
    assert codec.info(target)["width"] == image.width


def test_a_model_compresses_and_decompresses_tensors(zoo):
    model = codec.load_model("toy", zoo=zoo)
    x = torch.rand(1, 3, 20, 1030, generator=torch.Generator().manual_seed(0))
    stream = model.compress(x, quality=100)
    x_hat = model.decompress(stream)
    assert x_hat.shape == x.shape
    assert (x_hat - x).abs().max() <= 0.5001 / 255
    assert torch.equal(model.decompress(model.compress(x[0], quality=100)), x_hat)
    assert np.array_equal(
        np.asarray(codec.decode(stream, zoo=zoo)),
        (x_hat[0].permute(1, 2, 0) * 255).round().byte().numpy(),
    )


def test_a_model_refuses_what_another_made(zoo):
    stream = codec.encode(image_of_mode("RGB"), model="toy/sharp", zoo=zoo)
    with pytest.raises(ModelError, match="toy/blurry"):
        codec.load_model("toy/blurry", zoo=zoo).decompress(stream)


def test_encoding_twice_gives_the_same_bytes(zoo):
    image = image_of_mode("RGBA")
    first, second = (codec.encode(image, model="toy", zoo=zoo) for _ in range(2))
    assert first == second


def test_size_and_error_follow_quality(zoo):
    image = Image.fromarray(gradient(64, 64, 3))
    streams = [codec.encode(image, quality=q, model="toy", zoo=zoo) for q in range(0, 101, 20)]
    errors = [
        np.square(np.asarray(codec.decode(s, zoo=zoo)).astype(int) - np.asarray(image)).mean()
        for s in streams
    ]
    assert sorted(map(len, streams)) == [len(s) for s in streams]
    assert sorted(errors, reverse=True) == errors


# ---- targets


@pytest.mark.parametrize("size", [3000, 4321, 6000])
def test_a_target_size_is_the_best_quality_within_it(size, zoo):
    image = Image.fromarray(gradient(48, 48, 3))
    data = codec.encode(image, target_size=size, model="toy", zoo=zoo)
    quality = unpack(data).header.quality
    assert len(data) <= size < len(codec.encode(image, quality=quality + 1, model="toy", zoo=zoo))


def test_a_target_rate_counts_every_byte(zoo):
    image = Image.fromarray(gradient(48, 48, 3))
    data = codec.encode(image, target_bpp=12, model="toy", zoo=zoo)
    assert data == codec.encode(image, target_size=12 * 48 * 48 // 8, model="toy", zoo=zoo)
    assert codec.info(data)["bpp"] <= 12


@pytest.mark.parametrize("psnr", [36.6, 40.0, 45.0])
def test_a_target_psnr_is_the_lowest_quality_that_reaches_it(psnr, zoo):
    from codec.metrics import psnr as measured

    image = Image.fromarray(gradient(48, 48, 3))
    data = codec.encode(image, target_psnr=psnr, model="toy", zoo=zoo)
    quality = unpack(data).header.quality
    below = codec.encode(image, quality=quality - 1, model="toy", zoo=zoo)
    assert measured(image, codec.decode(data, zoo=zoo)) >= psnr
    assert measured(image, codec.decode(below, zoo=zoo)) < psnr


@pytest.mark.parametrize("target", [{"target_size": 10}, {"target_bpp": 0.1}])
def test_a_size_that_no_quality_keeps_is_refused(target, zoo):
    with pytest.raises(UsageError, match="quality 0 takes"):
        codec.encode(image_of_mode("RGB"), model="toy", zoo=zoo, **target)


def test_a_psnr_that_no_quality_reaches_is_refused(zoo):
    with pytest.raises(UsageError, match="quality 100 gives"):
        codec.encode(gradient(16, 16, 3, np.uint16), target_psnr=80, model="toy", zoo=zoo)


# ---- regions


@pytest.mark.parametrize("model", ["toy/sharp", "toy/blurry"])
@pytest.mark.parametrize(
    "region", [(0, 0, 1100, 40), (5, 7, 11, 13), (1000, 3, 60, 30), (1099, 39, 1, 1)]
)
def test_a_region_is_the_part_of_the_whole(region, model, zoo):
    data = codec.encode(gradient(40, 1100, 4), model=model, zoo=zoo)
    x, y, width, height = region
    whole = np.asarray(codec.decode(data, zoo=zoo))
    part = np.asarray(codec.decode(data, region=region, zoo=zoo))
    assert np.array_equal(part, whole[y : y + height, x : x + width])


def test_a_region_does_not_read_the_tiles_it_does_not_need(zoo):
    data = codec.encode(gradient(20, 3000, 3), quality=100, model="toy/blurry", zoo=zoo)
    container = unpack(data)
    tiles = [*container.tiles[:2], b"\xff"]
    chunks = [Chunk(ChunkType.TILE, payload) for payload in tiles]
    damaged = pack(container.header, chunks)
    left = np.asarray(codec.decode(damaged, region=(0, 0, 1024, 20), zoo=zoo))
    assert np.array_equal(left, np.asarray(codec.decode(data, zoo=zoo))[:, :1024])
    with pytest.raises(BitstreamError):  # its right neighbour's neighbour is needed here
        codec.decode(damaged, region=(0, 0, 1025, 20), zoo=zoo)


@pytest.mark.parametrize("region", [(0, 0, 0, 1), (-1, 0, 2, 2), (0, 0, 24, 1), (22, 18, 2, 1)])
def test_a_region_that_is_not_inside_is_refused(region, zoo):
    data = codec.encode(image_of_mode("RGB", 23, 19), model="toy", zoo=zoo)
    with pytest.raises(UsageError, match="23x19"):
        codec.decode(data, region=region, zoo=zoo)


# ---- search


@pytest.mark.parametrize(("target", "searches"), [({}, 1), ({"target_size": 10**6}, 7)])
def test_seconds_are_shared_by_tiles_and_by_the_steps_towards_a_target(target, searches, zoo):
    SEARCHES.clear()
    image = gradient(20, 1040, 3)
    codec.encode(image, model="toy", zoo=zoo, effort=3, time_limit=7, **target)
    seconds = [search.seconds for search in SEARCHES]
    assert seconds[:2] == pytest.approx([7 * 1024 / 1040 / searches, 7 * 16 / 1040 / searches])
    assert {search.effort for search in SEARCHES} == {3}


def test_without_a_limit_a_search_has_all_the_time_it_needs(zoo):
    SEARCHES.clear()
    codec.encode(gradient(20, 20, 3), model="toy", zoo=zoo)
    assert SEARCHES[0].seconds == math.inf


def test_an_interrupt_is_taken_only_where_somebody_wants_what_was_found_by_then():
    picture = Picture.from_array(gradient(20, 30, 3))

    def interrupting(part, note=""):
        if part < 1:
            raise KeyboardInterrupt

    def stream(take):
        options = EncodeOptions(model="inr", effort=9, take_interrupt=take)
        return encode_picture(picture, options, watch=Stopwatch(), progress=interrupting).stream

    assert codec.decode(stream(take=True)).size == (30, 20)
    with pytest.raises(KeyboardInterrupt):
        stream(take=False)


# ---- what is refused


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 101}, {"quality": -1}, {"quality": 50.5}, {"effort": 10}, {"device": "tpu"},
        {"device": "mps"}, {"model": "tou"}, {"model": "toy/other"}, {"target_psnr": -3},
        {"target_size": 100, "target_bpp": 1}, {"time_limit": 0}, {"time_limit": -1.0},
    ],
    ids=str,
)  # fmt: skip
def test_an_option_that_makes_no_sense_is_refused(options, zoo):
    with pytest.raises(UsageError):
        codec.encode(image_of_mode("RGB"), **{"model": "toy", "zoo": zoo} | options)


@pytest.mark.parametrize(
    "image", [b"bytes", 3, None, torch.zeros(2, 2), torch.zeros(3, 2, 2).int()]
)
def test_what_is_no_image_is_refused(image, zoo):
    with pytest.raises(UsageError):
        codec.encode(image, model="toy", zoo=zoo)


def test_a_missing_file_is_refused(tmp_path, zoo):
    for call in (codec.encode, codec.decode, codec.info):
        with pytest.raises(InputError, match="No such file"):
            call(tmp_path / "missing")


def test_fewer_layers_give_a_coarser_picture_and_more_than_all_are_refused(zoo):
    image = np.asarray(image_of_mode("RGB", 40, 40))
    data = codec.encode(image, model="toy", quality=100, zoo=zoo)
    whole, core = (np.asarray(codec.decode(data, layers=k, zoo=zoo)) for k in (1, 0))
    np.testing.assert_array_equal(image, whole)
    assert core.shape == image.shape
    np.testing.assert_array_equal(image[::16, ::16, 0], core[::16, ::16, 0])  # in the first stream
    assert (core == 0).mean() > 0.9
    for layers in (-1, 2):
        with pytest.raises(UsageError, match="layers"):
            codec.decode(data, layers=layers, zoo=zoo)


def test_a_cut_stream_decodes_to_what_is_whole_only_when_asked(zoo):
    image = np.asarray(image_of_mode("RGB", 1040, 40))  # two tiles
    data = codec.encode(image, model="toy", quality=100, zoo=zoo)
    container = unpack(data)
    first_end = data.index(container.tiles[0]) + len(container.tiles[0]) + 4
    seen = set()
    for size in range(len(data)):
        if size % 97 and abs(size - first_end) > 8:
            continue
        with pytest.raises(BitstreamError):
            codec.decode(data[:size], zoo=zoo)
        try:
            part = np.asarray(codec.decode(data[:size], allow_partial=True, zoo=zoo))
        except BitstreamError:
            assert size < data.index(container.tiles[0]) + len(container.tiles[0])
            seen.add("nothing")
            continue
        assert part.shape == image.shape
        if size >= first_end:
            np.testing.assert_array_equal(image[:, :1024], part[:, :1024])
            seen.add("first tile")
        else:
            np.testing.assert_array_equal(image[::16, :1024:16, 0], part[::16, :1024:16, 0])
            seen.add("core of the first tile")
    assert seen == {"nothing", "core of the first tile", "first tile"}
    np.testing.assert_array_equal(image, codec.decode(data, allow_partial=True, zoo=zoo))


def test_damage_is_refused_also_where_a_cut_is_not(zoo):
    data = bytearray(codec.encode(image_of_mode("RGB", 40, 40), model="toy", zoo=zoo))
    data[-10] ^= 1
    with pytest.raises(BitstreamError):
        codec.decode(bytes(data), allow_partial=True, zoo=zoo)


def test_the_limit_on_pixels_holds_in_both_directions(zoo):
    image = image_of_mode("RGB", 20, 10)
    data = codec.encode(image, model="toy", max_pixels=200, zoo=zoo)
    for source in (image, np.asarray(image)):
        with pytest.raises(LimitError):
            codec.encode(source, model="toy", max_pixels=199, zoo=zoo)
    assert codec.decode(data, max_pixels=200, zoo=zoo).size == (20, 10)
    with pytest.raises(LimitError):
        codec.decode(data, max_pixels=199, zoo=zoo)


# ---- hostile streams


@given(draws=st.data())
@settings(deadline=None)
def test_any_bytes_are_an_image_or_an_error(zoo, draws):
    mode = draws.draw(st.sampled_from(["RGB", "P+alpha", "LA", "RGB+key"]))
    container = unpack(codec.encode(image_of_mode(mode), model="toy", zoo=zoo))
    # The checksums are right, the payloads are not: what a checksum cannot find.
    damaged = draws.draw(st.sampled_from(container.chunks))
    payload = draws.draw(st.binary(max_size=80)) + damaged.payload[draws.draw(st.integers(0, 80)) :]
    chunks = [Chunk(c.type, payload if c is damaged else c.payload) for c in container.chunks]
    try:
        image = codec.decode(pack(container.header, chunks), zoo=zoo)
    except CodecError:
        return
    assert image.size == (container.header.width, container.header.height)


@given(st.binary(max_size=200))
def test_noise_is_an_error(noise):
    for call in (codec.decode, codec.info):
        with pytest.raises(BitstreamError):
            call(noise)


def test_a_tile_with_bytes_left_over_is_refused(zoo):
    container = unpack(codec.encode(image_of_mode("RGB"), model="toy", zoo=zoo))
    longer = [Chunk(ChunkType.TILE, container.tiles[0] + bytes(2))]
    with pytest.raises(BitstreamError):
        codec.decode(pack(container.header, longer), zoo=zoo)


def test_a_palette_where_none_belongs_is_refused(zoo):
    container = unpack(codec.encode(image_of_mode("CMYK"), model="toy", zoo=zoo))
    chunks = [*container.chunks, Chunk(ChunkType.PALETTE, bytes(3))]
    with pytest.raises(BitstreamError, match="palette"):
        codec.decode(pack(container.header, chunks), zoo=zoo)


def test_alpha_of_another_size_is_refused(zoo):
    small = unpack(codec.encode(image_of_mode("LA", 9, 9), model="toy", zoo=zoo))
    large = unpack(codec.encode(image_of_mode("LA", 10, 9), model="toy", zoo=zoo))
    chunks = [
        Chunk(ChunkType.ALPHA, small.find(ChunkType.ALPHA)) if c.type == ChunkType.ALPHA else c
        for c in large.chunks
    ]
    with pytest.raises(BitstreamError, match="alpha"):
        codec.decode(pack(large.header, chunks), zoo=zoo)


# ---- info and weights


def test_info_says_what_is_in_a_stream(zoo):
    data = codec.encode(image_of_mode("RGBA", 23, 19), model="toy", zoo=zoo)
    found = codec.info(data)
    assert set(found) == {
        "format_version", "family", "model_id", "kind", "width", "height", "frames", "bpp",
        "chunks", "layers",
    }  # fmt: skip
    assert (found["width"], found["height"], found["frames"]) == (23, 19, 1)
    assert found["bpp"] == 8 * len(data) / (23 * 19)
    assert found["model_id"] == zoo.find("toy").model_id.hex()
    assert [set(chunk) for chunk in found["chunks"]] == [{"type", "offset", "length", "crc_ok"}] * 3
    assert [chunk["type"] for chunk in found["chunks"]] == ["header", "alpha", "tile"]


def test_info_shows_which_chunk_is_damaged(zoo):
    data = bytearray(codec.encode(image_of_mode("RGB"), model="toy", zoo=zoo))
    data[-10] ^= 1
    assert [chunk["crc_ok"] for chunk in codec.info(bytes(data))["chunks"]] == [True, False]


def test_an_opaque_alpha_plane_is_almost_free(zoo):
    array = gradient(64, 64, 4)
    array[:, :, 3] = 255
    plain = codec.encode(array[:, :, :3], quality=100, model="toy", zoo=zoo)
    data = codec.encode(array, quality=100, model="toy", zoo=zoo)
    assert len(data) <= len(plain) + 10
    assert np.array_equal(np.asarray(codec.decode(data, zoo=zoo)), array)


def test_seconds_add_up_to_no_more_than_their_total(zoo):
    watch = api.Stopwatch()
    picture = api._picture(image_of_mode("RGB"), 1 << 20)
    api.encode_picture(picture, api.EncodeOptions(model="toy", zoo=zoo), watch=watch)
    seconds = watch.seconds
    assert set(seconds) == {"load", "transform", "entropy", "total"}
    assert sum(seconds.values()) <= 2 * seconds["total"] + 1e-5


def test_the_digest_of_symbols_is_that_of_what_was_coded(tmp_path):
    zoo = make_zoo(tmp_path / "zoo")
    same, other = gradient(20, 20, 3), gradient(20, 20, 3, seed=2)
    digests = [
        api.decode_stream(
            codec.encode(array, model="toy", zoo=zoo),
            api.DecodeOptions(zoo=zoo),
            watch=api.Stopwatch(),
        ).symbols_sha256
        for array in (same, same, other)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_lanes_are_the_encoders_choice(zoo):
    image = gradient(40, 60, 3)
    plain, many = (codec.encode(image, model="toy", lanes=lanes, zoo=zoo) for lanes in (None, 64))
    assert len(plain) < len(many)
    np.testing.assert_array_equal(codec.decode(plain, zoo=zoo), codec.decode(many, zoo=zoo))
    for wrong in (0, 3, 2048):
        with pytest.raises(UsageError, match="lanes"):
            codec.encode(image, model="toy", lanes=wrong, zoo=zoo)


# ---- batches


def test_a_batch_is_its_streams_one_by_one(zoo):
    arrays = [np.roll(gradient(20, 1030, 3), k, axis=1) for k in range(3)]  # two tiles each
    streams = [codec.encode(array, quality=90, model="toy", zoo=zoo) for array in arrays]
    batch = codec.decode_batch(streams, device="cpu", zoo=zoo)
    assert batch.shape == (3, 3, 20, 1030)
    for x_hat, stream in zip(batch, streams, strict=True):
        assert torch.equal(x_hat, codec.decode(stream, as_tensor=True, device="cpu", zoo=zoo))


@pytest.mark.parametrize("mode", [*MODES, *KEYED])
def test_a_tensor_is_the_levels_of_the_array(mode, zoo):
    data = codec.encode(image_of_mode(mode), quality=40, model="toy", zoo=zoo)
    decoded = api.decode_stream(data, api.DecodeOptions(zoo=zoo), watch=Stopwatch()).picture
    array = np.atleast_3d(decoded.to_array()).astype(np.float32)
    wanted = torch.from_numpy(array).permute(2, 0, 1) / (2**decoded.bit_depth - 1)
    assert torch.equal(codec.decode(data, as_tensor=True, device="cpu", zoo=zoo), wanted)


def test_a_batch_of_unlike_streams_or_none_or_too_many_is_refused(zoo):
    a, b = (
        codec.encode(gradient(20, width, 3), quality=90, model="toy", zoo=zoo) for width in (30, 31)
    )
    with pytest.raises(codec.UsageError, match="stream 1 has another"):
        codec.decode_batch([a, b], zoo=zoo)
    with pytest.raises(codec.UsageError, match="got none"):
        codec.decode_batch([], zoo=zoo)
    with pytest.raises(codec.LimitError):
        codec.decode_batch([a, a], max_pixels=1199, zoo=zoo)
    assert codec.decode_batch([a, a], max_pixels=1200, zoo=zoo).shape == (2, 3, 20, 30)


def test_a_damaged_stream_of_a_batch_is_told(zoo):
    data = codec.encode(gradient(20, 30, 3), quality=90, model="toy", zoo=zoo)
    with pytest.raises(codec.BitstreamError):
        codec.decode_batch([data, data[:-1]], zoo=zoo)

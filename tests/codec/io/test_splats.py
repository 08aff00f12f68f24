import gzip
import struct
import sys
from contextlib import suppress

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import CodecError, InputError, LimitError, ModelError, UsageError
from codec.gaussians import Gaussians
from codec.io.splats import read_splats, sequence_of, write_splats


def some(count=20, degree=2, seed=0):
    """Values that every format can state."""
    rng = np.random.default_rng(seed)
    return Gaussians(
        means=rng.normal(size=(count, 3)).astype(np.float32),
        quats=rng.normal(size=(count, 4)).astype(np.float32),
        scales=rng.uniform(-8, 2, (count, 3)).astype(np.float32),
        opacities=rng.uniform(-4, 4, count).astype(np.float32),
        sh=rng.uniform(-0.9, 0.9, (count, (degree + 1) ** 2, 3)).astype(np.float32),
    )


def rotations(quats):
    """`(N, 3, 3)`, the same for q and -q."""
    w, x, y, z = (quats / np.linalg.norm(quats, axis=1, keepdims=True)).T.astype(np.float64)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)


def alphas(gaussians):
    return 1 / (1 + np.exp(-gaussians.opacities.astype(np.float64)))


@given(st.integers(0, 40), st.integers(0, 3))
def test_ply_keeps_every_bit(tmp_path_factory, count, degree):
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    given_ = some(count, degree)
    write_splats(path, given_)
    read = read_splats(path)
    for name in ("means", "quats", "scales", "opacities", "sh"):
        np.testing.assert_array_equal(getattr(read, name), getattr(given_, name))


@pytest.mark.parametrize("version", [3, 4])
@given(count=st.integers(0, 40), degree=st.integers(0, 3))
def test_spz_keeps_its_levels(tmp_path_factory, version, count, degree):
    path = tmp_path_factory.mktemp("spz") / "a.spz"
    given_ = some(count, degree)
    write_splats(path, given_, spz_version=version)
    read = read_splats(path)
    np.testing.assert_allclose(read.means, given_.means, atol=0.5 / 4096 + 1e-6)
    np.testing.assert_allclose(read.scales, given_.scales, atol=1 / 32 + 1e-6)
    np.testing.assert_allclose(alphas(read), alphas(given_), atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(read.sh[:, :1], given_.sh[:, :1], atol=0.5 / 255 / 0.15 + 1e-6)
    np.testing.assert_allclose(read.sh[:, 1:4], given_.sh[:, 1:4], atol=4 / 128 + 1e-6)
    np.testing.assert_allclose(read.sh[:, 4:], given_.sh[:, 4:], atol=8 / 128 + 1e-6)
    np.testing.assert_allclose(rotations(read.quats), rotations(given_.quats), atol=0.01)


@given(st.integers(0, 40))
def test_splat_keeps_its_levels_and_one_colour(tmp_path_factory, count):
    path = tmp_path_factory.mktemp("splat") / "a.splat"
    given_ = some(count, 3)
    write_splats(path, given_)
    read = read_splats(path)
    assert read.degree == 0
    np.testing.assert_array_equal(read.means, given_.means)
    np.testing.assert_allclose(read.scales, given_.scales, atol=1e-5)
    np.testing.assert_allclose(alphas(read), alphas(given_), atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(read.sh, given_.sh[:, :1], atol=0.5 / 255 / 0.282 + 1e-6)
    np.testing.assert_allclose(rotations(read.quats), rotations(given_.quats), atol=0.04)


# ---- files made by hand


BASE = [*"xyz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
BASE += [*(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]


def ply(body, properties, form="binary_little_endian", count=1, after=""):
    lines = ["ply", f"format {form} 1.0", "comment by hand", f"element vertex {count}"]
    lines += [f"property {kind} {name}" for kind, name in properties]
    return ("\n".join(lines) + f"\n{after}end_header\n").encode() + body


@pytest.mark.parametrize("order", ["<", ">"])
def test_ply_of_any_order_and_number_type_is_read(tmp_path, order):
    names = [f"f_rest_{i}" for i in range(9)] + BASE[::-1]
    values = {name: float(at) for at, name in enumerate(names)}
    kinds = {"x": ("double", "d"), "f_rest_3": ("uchar", "B"), "rot_0": ("int16", "h")}
    body = b"".join(
        struct.pack(
            order + kinds.get(name, ("float", "f"))[1], int(value) if name in kinds else value
        )
        for name, value in values.items()
    )
    form = "binary_little_endian" if order == "<" else "binary_big_endian"
    path = tmp_path / "a.ply"
    path.write_bytes(ply(body, [(kinds.get(n, ("float",))[0], n) for n in names], form))
    read = read_splats(path)
    assert read.means.tolist() == [[values[name] for name in "xyz"]]
    assert read.quats.tolist() == [[values[f"rot_{i}"] for i in range(4)]]
    assert read.scales.tolist() == [[values[f"scale_{i}"] for i in range(3)]]
    assert read.opacities.tolist() == [values["opacity"]]
    # Coefficients of red come first, then those of green, then those of blue.
    dc = [values[f"f_dc_{i}"] for i in range(3)]
    assert read.sh[0].tolist() == [dc, [0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_ply_of_text_with_faces_after_it_is_read(tmp_path):
    properties = [("float", name) for name in BASE]
    body = b"1 2 3 .1 .2 .3 -1 -2 -3 -4 1 0 0 0\n3 0 0 0\n"
    after = "element face 1\nproperty list uchar int vertex_indices\n"
    path = tmp_path / "a.ply"
    path.write_bytes(ply(body, properties, "ascii", after=after))
    read = read_splats(path)
    assert read.means.tolist() == [[1, 2, 3]]
    np.testing.assert_allclose(read.sh[0, 0], [0.1, 0.2, 0.3], atol=1e-6)


def spz(version, degree=0, count=1):
    """One Gaussian at (1, 2, 3) of SPZ's axes, turned by 90 degrees around y, by hand."""
    harmonics = bytes(128 + i for i in range(3 * ((degree + 1) ** 2 - 1)))
    if version == 1:
        positions = np.array([1, 2, 3], "<f2").tobytes()
    else:
        positions = b"".join((n * 4096).to_bytes(3, "little") for n in (1, 2, 3))
    # y and w are equal: w is the greatest, y is 511 / 511 of the root of a half.
    rotation = struct.pack("<I", 3 << 30 | 511 << 10) if version > 2 else bytes([127, 218, 127])
    parts = [positions, b"\x80", bytes([0, 128, 255]), bytes([160, 80, 0]), rotation, harmonics]
    head = struct.pack("<4sIIBBBB", b"NGSP", version, count, degree, 12, 0, 0)
    if version < 4:
        return gzip.compress(head + b"".join(parts))
    parts = [part for part in parts if part]
    packed = [zstandard.compress(part) for part in parts]
    table = b"".join(struct.pack("<QQ", len(b), len(a)) for a, b in zip(parts, packed, strict=True))
    return head[:15] + bytes([len(parts)]) + struct.pack("<I12x", 32) + table + b"".join(packed)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_spz_by_hand_is_read_with_y_and_z_turned(tmp_path, version, degree):
    path = tmp_path / "a.spz"
    path.write_bytes(spz(version, degree))
    read = read_splats(path)
    assert read.means.tolist() == [[1, -2, -3]]
    assert read.scales.tolist() == [[0, -5, -10]]
    np.testing.assert_allclose(read.opacities, np.log(128 / 127), atol=1e-5)
    np.testing.assert_allclose(
        read.sh[0, 0], [-0.5 / 0.15, 0.5 / 255 / 0.15, 0.5 / 0.15], atol=1e-5
    )
    turned = rotations(read.quats)[0]  # by 90 degrees around -y
    np.testing.assert_allclose(turned, [[0, 0, -1], [0, 1, 0], [1, 0, 0]], atol=0.02)
    if degree:
        # y, z and x of SPZ's axes are -y, -z and x here.
        levels = np.arange(9).reshape(3, 3) / 128
        np.testing.assert_array_equal(read.sh[0, 1:4], levels * [[-1], [-1], [1]])


def harmonics(direction):
    """The sixteen of INRIA's order, without their factors."""
    x, y, z = direction
    second = [x * y, y * z, 2 * z * z - x * x - y * y, x * z, x * x - y * y]
    left = [y * (3 * x * x - y * y), x * y * z, y * (4 * z * z - x * x - y * y)]
    right = [x * (4 * z * z - x * x - y * y), z * (x * x - y * y), x * (x * x - 3 * y * y)]
    middle = z * (2 * z * z - 3 * x * x - 3 * y * y)
    return np.array([1, y, z, x, *second, *left, middle, *right])


def test_colour_seen_from_a_direction_is_the_same_in_spz_axes(tmp_path):
    path = tmp_path / "a.spz"
    path.write_bytes(spz(4, 3))
    read = read_splats(path).sh[0, 1:, 0]
    theirs = np.arange(0, 45, 3) / 128  # of red, in SPZ's axes
    for direction in np.random.default_rng(0).normal(size=(8, 3)):
        there = theirs @ harmonics(direction)[1:]
        assert read @ harmonics(direction * [1, -1, -1])[1:] == pytest.approx(there)


def test_splat_by_hand_is_read(tmp_path):
    path = tmp_path / "a.splat"
    path.write_bytes(
        struct.pack("<6f", 1, 2, 3, 1, 1, 1) + bytes([0, 255, 0, 128, 255, 128, 128, 128])
    )
    read = read_splats(path)
    assert read.means.tolist() == [[1, 2, 3]]
    assert read.scales.tolist() == [[0, 0, 0]]
    np.testing.assert_allclose(rotations(read.quats)[0], np.eye(3), atol=1e-6)
    np.testing.assert_allclose(read.sh[0, 0], [-1.7725, 1.7725, -1.7725], atol=1e-4)


# ---- damage and limits


def files():
    body = struct.pack("<14f", *range(1, 15))
    yield ".ply", ply(body, [("float", name) for name in BASE])
    yield ".splat", struct.pack("<6f", *range(1, 7)) + bytes(range(8))
    yield from ((".spz", spz(version, 2)) for version in (1, 2, 3, 4))


@pytest.mark.parametrize(("extension", "data"), list(files()))
def test_every_cut_and_every_longer_file_is_refused(tmp_path, extension, data):
    path = tmp_path / f"a{extension}"
    for size in range(1, len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(InputError):
            read_splats(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(InputError):
        read_splats(path)


@pytest.mark.parametrize(("extension", "data"), list(files()))
@given(draw=st.data())
def test_changed_bytes_give_gaussians_or_a_codec_error(tmp_path_factory, extension, data, draw):
    path = tmp_path_factory.mktemp("damage") / f"a{extension}"
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        changed[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    path.write_bytes(changed)
    with suppress(CodecError):
        assert isinstance(read_splats(path), Gaussians)


@pytest.mark.parametrize(("extension", "data"), list(files()))
def test_more_gaussians_than_the_limit_are_refused(tmp_path, extension, data):
    path = tmp_path / f"a{extension}"
    path.write_bytes(data)
    assert len(read_splats(path, max_gaussians=1)) == 1
    with pytest.raises(LimitError, match="1 Gaussians are more than 0"):
        read_splats(path, max_gaussians=0)


def test_counts_that_the_file_cannot_hold_are_refused(tmp_path):
    for name, data in (
        ("a.ply", ply(b"", [("float", name) for name in BASE], count=10**7)),
        ("b.ply", ply(b"1 2", [("float", name) for name in BASE], "ascii", count=10**7)),
        ("a.spz", spz(3, count=10**7)),
        ("b.spz", spz(4, count=10**7)),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match="want"):
            read_splats(tmp_path / name)


def test_values_that_are_no_gaussian_are_refused(tmp_path):
    path = tmp_path / "a.ply"
    for at, value in ((0, np.nan), (6, np.inf), (slice(10, 14), 0)):
        row = np.ones(14, "<f4")
        row[at] = value
        path.write_bytes(ply(row.tobytes(), [("float", name) for name in BASE]))
        with pytest.raises(InputError, match="1 of 1"):
            read_splats(path)


def test_other_extensions_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.ply"):
        read_splats(tmp_path / "a.obj")
    with pytest.raises(UsageError, match=r"\.ply"):
        write_splats(tmp_path / "a.obj", some())
    with pytest.raises(UsageError, match="version"):
        write_splats(tmp_path / "a.spz", some(), spz_version=2)


def test_without_zstandard_version_4_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "a.spz"
    write_splats(path, some())
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ModelError, match=r"codec\[scenes\]"):
        read_splats(path)
    with pytest.raises(ModelError, match=r"codec\[scenes\]"):
        write_splats(path, some())
    write_splats(path, some(), spz_version=3)
    assert len(read_splats(path)) == 20


def test_a_scene_wider_than_spz_can_say_gets_a_coarser_step_or_is_refused(tmp_path):
    path = tmp_path / "a.spz"
    wide = some(1)
    wide.means[:] = 5000.5
    write_splats(path, wide)
    np.testing.assert_allclose(read_splats(path).means, 5000.5, atol=0.001)
    wide.means[:] = 1e7
    with pytest.raises(UsageError, match="too far"):
        write_splats(path, wide)


def test_an_empty_scene_with_streams_is_refused(tmp_path):
    path = tmp_path / "a.spz"
    write_splats(path, some(0))
    assert len(read_splats(path)) == 0
    data = bytearray(path.read_bytes())
    for streams in range(1, 256):
        data[15] = streams
        path.write_bytes(bytes(data) + bytes(16 * streams))
        with pytest.raises(InputError):
            read_splats(path)


def test_a_short_file_cannot_unpack_to_more_than_it_says(tmp_path):
    path = tmp_path / "a.spz"
    body = bytes(10**6)
    head = struct.pack("<4sIIBBBB", b"NGSP", 3, 1, 0, 12, 0, 0)
    path.write_bytes(gzip.compress(head + body))
    with pytest.raises(InputError, match="want 20 bytes of 1 Gaussians, got 21"):
        read_splats(path)
    data = bytearray(spz(4))
    packed = zstandard.compress(body)
    struct.pack_into("<QQ", data, 32 + 4 * 16, len(packed), 4)
    old = len(zstandard.compress(struct.pack("<I", 3 << 30 | 511 << 10)))
    path.write_bytes(bytes(data[:-old]) + packed)
    with pytest.raises(InputError, match="stream 4: want 4 bytes, got 5"):
        read_splats(path)


# ---- sequences


def touch(folder, *names):
    for name in names:
        (folder / name).touch()


def test_a_pattern_gives_its_frames_in_the_order_of_their_numbers(tmp_path):
    touch(tmp_path, "f_0010.ply", "f_0009.ply", "f_11.ply", "f_0011.spz", "g_0008.ply")
    found = sequence_of(tmp_path / "f_%04d.ply")
    assert [path.name for path in found] == ["f_0009.ply", "f_0010.ply"]
    touch(tmp_path, "f_0012.ply")
    with pytest.raises(InputError, match="frame 11 is missing"):
        sequence_of(tmp_path / "f_%04d.ply")
    with pytest.raises(InputError, match="no file"):
        sequence_of(tmp_path / "h_%04d.ply")


def test_a_folder_gives_its_files_in_the_order_of_their_last_numbers(tmp_path):
    touch(tmp_path, "a2.ply", "a10.ply", "a1.ply", "notes.txt")
    assert [path.name for path in sequence_of(tmp_path)] == ["a1.ply", "a2.ply", "a10.ply"]
    touch(tmp_path, "a3.spz")
    with pytest.raises(InputError, match="of one of"):
        sequence_of(tmp_path)


def test_a_pattern_of_endless_digits_is_none(tmp_path):
    (tmp_path / "f_1.ply").touch()
    with pytest.raises(InputError, match="no such file"):
        sequence_of(tmp_path / "f_%0999999999999d.ply")


def test_a_file_is_a_sequence_of_one(tmp_path):
    touch(tmp_path, "a.ply")
    assert sequence_of(tmp_path / "a.ply") == [tmp_path / "a.ply"]
    with pytest.raises(InputError, match="no such"):
        sequence_of(tmp_path / "b.ply")

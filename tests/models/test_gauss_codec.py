import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from codec.datasets.scenes import scripted
from codec.entropy import BitCounter, Decoder, Encoder
from codec.errors import BitstreamError, UsageError
from codec.gaussians import COEFFICIENTS, Gaussians
from codec.models.gauss import Gauss
from codec.models.gauss.codec import KEY_SLICE
from codec.models.gauss.lattice import (
    NORMAL,
    STAY,
    TWIST,
    WIDTH,
    Rows,
    followed,
    gaussians_of,
    key_rows,
    morton,
    shifts,
)
from codec.models.gauss.plan import BIN_MAX, Plan
from codec.models.gauss.planning import planned
from codec.models.gauss.projection import rotations
from codec.models.gauss.syntax import CHANGES, DIES, SLICE_MAX, STAYS
from codec.models.gauss.tables import CONTEXTS, even
from codec.models.gauss.tracking import NOBODY, matched
from codec.weights import SHIPPED
from tests.models import gauss_reference

GAUSS = SHIPPED.load(SHIPPED.find("gauss"))
FIELDS = ("means", "quats", "scales", "opacities", "sh")
SLOW = settings(
    max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def frames_of(count, frames=2, degree=0, **options):
    scene = scripted(count, frames=max(frames, 8), degree=degree, **options)
    return [scene.frame(number) for number in range(frames)]


def empty(degree=0):
    return frames_of(1, 1, degree)[0].take(slice(0, 0))


def joined(*parts):
    return Gaussians(*(np.concatenate([getattr(part, key) for part in parts]) for key in FIELDS))


def coded(scene, slices, befores):
    """Payloads of slices, and the slices after them, as a decoder has them."""
    payloads, after = [], []
    for symbols, before in zip(slices, befores, strict=True):
        encoder = Encoder()
        scene.traverse(encoder, symbols, before)
        payloads.append(encoder.finish())
        found = decoded(scene, payloads[-1], before)
        assert list(found) == list(symbols)
        for key, values in symbols.items():
            np.testing.assert_array_equal(found[key], values)
            assert found[key].dtype == np.int32
        after.append(scene.after(found, before))
    return payloads, after


def decoded(scene, payload, before, layers=None):
    decoder = Decoder(payload)
    symbols = scene.traverse(decoder, None, before, layers)
    decoder.finish()
    return symbols


def play(frames, quality=60, family=GAUSS):
    """The scene, payloads and slices of each frame, the first of which is a key frame."""
    scene = family.scene(family.plan(frames, quality))
    slices = scene.key(frames[0])
    payloads, states = coded(scene, slices, [None] * len(slices))
    found = [(payloads, states)]
    for frame in frames[1:]:
        payloads, states = coded(scene, scene.follow(frame, states), states)
        found.append((payloads, states))
    return scene, found


@cache
def played(degree):
    """Six slices of two frames, of which the second has births, deaths and motion."""
    frames = frames_of(6 * KEY_SLICE // 2, 2, degree, turnover=0.1, moving=0.1)
    return (frames, *play(frames))


def size_of(payloads):
    return sum(len(stream) for payload in payloads for stream in payload.values())


def covariances(gaussians):
    turned = rotations(torch.from_numpy(gaussians.quats).double()).numpy()
    shape = turned * np.exp(gaussians.scales.astype(np.float64))[:, None]
    return shape @ shape.transpose(0, 2, 1)


def apart(a, b):
    """How far two covariances are from each other, relative to the size of either."""
    first, second = covariances(a), covariances(b)
    return np.abs(first - second).max((1, 2)) / np.abs(second).max((1, 2))


# ---- round trips


@SLOW
@given(
    st.sampled_from([0, 1, 2, 70]),
    st.sampled_from([0, 1, 2, 70]),
    st.integers(0, 3),
    st.sampled_from([0, 50, 100]),
)
@example(KEY_SLICE + 1, KEY_SLICE + 1, 0, 100)
@example(KEY_SLICE + 1, 90, 3, 50)
@example(0, KEY_SLICE, 1, 50)
def test_symbols_come_back_whatever_the_number_of_gaussians(first, second, degree, quality):
    frames = [frames_of(n, 1, degree)[0] if n else empty(degree) for n in (first, second)]
    scene, found = play([frames[0], frames[1], frames[0]], quality)
    for count, (_, states) in zip((first, second, first), found, strict=True):
        gaussians = scene.gaussians(states)
        assert len(gaussians) == count
        assert gaussians.degree == degree


def test_at_the_best_quality_gaussians_are_about_those_of_the_file():
    frames = frames_of(2000, 3, 2, moving=0.3, turnover=0.1, flicker=0.1)
    plan = planned(frames, 100)
    scene, found = play(frames, 100)
    for frame, (_, states) in zip(frames, found, strict=True):
        got = scene.gaussians(states)
        # Which Gaussian is which: the nearest, in place and colour.
        away = np.abs(got.means[:, None] - frame.means).sum(2)
        away = away + np.abs(got.sh[:, None, 0] - frame.sh[:, 0]).sum(2)
        to = away.argmin(1)
        assert len(set(to)) == len(frame)
        want = frame.take(to)
        step = plan.radius / plan.cells
        assert np.abs(got.means - want.means).max() < 1.6 * step
        assert np.median(apart(got, want)) < 0.04
        assert apart(got, want).max() < 0.3
        assert np.abs(got.sh - want.sh).max() < 0.71 * max(plan.colour, plan.rest) / 4096
        alphas = [1 / (1 + np.exp(-one.opacities.astype(float))) for one in (got, want)]
        assert np.abs(alphas[0] - alphas[1]).max() < 0.71 / plan.opacity


def test_better_quality_makes_all_steps_finer_and_files_larger():
    frames = frames_of(500, 1, 1)
    plans = [planned(frames, quality) for quality in range(0, 101, 10)]
    for name in ("cells", "normal", "twist", "opacity"):
        steps = [getattr(plan, name) for plan in plans]
        assert steps == sorted(steps)
        assert steps[-1] >= 8 * steps[0]
    for name in ("scale", "colour", "rest"):
        steps = [getattr(plan, name) for plan in plans]
        assert steps == sorted(set(steps), reverse=True)
    sizes = [size_of(play(frames, quality)[1][0][0]) for quality in (0, 30, 60, 61, 100)]
    assert sizes == sorted(set(sizes))


def test_a_file_that_is_ordered_or_turned_otherwise_gives_the_same_rows():
    frame = frames_of(300, 1)[0]
    plan = planned([frame], 100)
    rows, order = key_rows(frame, plan)
    assert (np.diff(morton(rows.base)) > 0).all()
    draws = np.random.default_rng(0)
    mixed = frame.take(draws.permutation(300))
    np.testing.assert_array_equal(key_rows(mixed, plan)[0].base, rows.base)
    negated = replace(frame, quats=-3 * frame.quats)
    np.testing.assert_array_equal(key_rows(negated, plan)[0].base, rows.base)
    # A quarter of a turn around an axis lets the two others change places.
    w, x, y, z = frame.quats.T
    turned = np.stack([w - x, x + w, y + z, z - y], 1)
    swapped = replace(frame, quats=turned, scales=frame.scales[:, [0, 2, 1]])
    assert apart(swapped, frame).max() < 1e-5
    np.testing.assert_array_equal(key_rows(swapped, plan)[0].base, rows.base)
    assert apart(gaussians_of(rows, plan), frame.take(order)).max() < 1


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_any_axis_may_be_the_longest(order):
    quats = np.random.default_rng(1).normal(size=(400, 4)).astype(np.float32)
    frame = frames_of(400, 1)[0]
    scales = np.log(np.array([0.3, 0.1, 0.01], np.float32))[list(order)]
    frame = replace(frame, quats=quats, scales=np.tile(scales, (400, 1)))
    scene, found = play([frame], 100)
    rows, to = key_rows(frame, planned([frame], 100))
    np.testing.assert_array_equal(found[0][1][0]["base"], rows.base)
    assert apart(scene.gaussians(found[0][1]), frame.take(to)).max() < 0.15


def test_gaussians_far_away_leave_the_lattice_as_it_is():
    frame = frames_of(1000, 1)[0]
    far = replace(frame.take(slice(0, 5)), means=frame.means[:5] * np.float32(1000))
    plan = planned([frame], 60)
    wide = planned([joined(frame, far)], 60)
    assert wide.cells / wide.radius > 0.9 * plan.cells / plan.radius
    rows, to = key_rows(joined(frame, far), wide)
    got, want = gaussians_of(rows, wide), joined(frame, far).take(to)
    assert (np.abs(got.means - want.means) < 0.01 * (1 + np.abs(want.means))).all()


def test_values_that_no_step_fits_are_refused():
    frame = frames_of(20, 1)[0]
    for bad in (
        replace(frame, sh=frame.sh * np.float32(1e9)),
        replace(frame, means=frame.means * np.float32(1e30)),
    ):
        with pytest.raises(UsageError):
            GAUSS.plan([bad], 60)
    scene = GAUSS.scene(GAUSS.plan([frame], 100))
    with pytest.raises(UsageError):
        scene.key(replace(frame, sh=frame.sh * np.float32(1e9)))
    with pytest.raises(UsageError):
        GAUSS.plan([frame, frames_of(20, 1, 1)[0]], 60)
    with pytest.raises(UsageError):
        scene.key(frames_of(20, 1, 1)[0])


# ---- later frames


def test_a_frame_that_stays_costs_next_to_nothing_and_one_that_moves_a_bit_per_gaussian():
    frames = frames_of(3 * KEY_SLICE, 3, moving=0.05)
    scene, found = play([frames[0], frames[0], *frames[1:]])
    key, still, first, second = (size_of(payloads) for payloads, _ in found)
    assert key < 62 * len(frames[0]) / 8
    assert still <= 3 * 10
    assert max(first, second) < len(frames[0]) / 8
    for symbols in scene.follow(frames[0], found[0][1]):
        assert (symbols["gates"] == STAYS).all()


def test_gaussians_are_followed_in_whatever_order_a_file_has_them():
    frames = frames_of(KEY_SLICE, 2, 1, moving=0.1)
    mixed = frames[1].take(np.random.default_rng(0).permutation(KEY_SLICE))
    scene, found = play(frames)
    slices = scene.follow(mixed, found[0][1])
    for symbols, state in zip(slices, found[1][1], strict=True):
        np.testing.assert_array_equal(scene.after(symbols, found[0][1][0])["base"], state["base"])
        assert not (symbols["gates"] == DIES).any()
        assert 0.05 < (symbols["gates"] == CHANGES).mean() < 0.12


def test_births_and_deaths_are_those_of_the_file_and_births_come_last():
    frames, scene, found = played(0)
    before = found[0][1]
    slices = scene.follow(frames[1], before)
    deaths = sum(int((symbols["gates"] == DIES).sum()) for symbols in slices)
    births = sum(int(symbols["head"][0]) for symbols in slices)
    # One that dies may be taken for one that is born beside it.
    assert births - deaths == len(frames[1]) - len(frames[0])
    assert 0 < deaths < 0.1 * len(frames[0])
    assert births > 0
    for symbols, state, after in zip(slices, before, found[1][1], strict=True):
        lives = symbols["gates"] != DIES
        kept = state["base"][lives].copy()
        kept[symbols["gates"][lives] == CHANGES] += symbols["moves"].reshape(-1, WIDTH)
        np.testing.assert_array_equal(after["base"][: len(kept)], kept)
        np.testing.assert_array_equal(after["base"][len(kept) :].reshape(-1), symbols["new"])


def test_a_few_births_cost_no_more_than_they_do_in_a_key_frame():
    frame = frames_of(KEY_SLICE, 1)[0]
    _, found = play([frame.take(slice(3, None)), frame])
    assert size_of(found[1][0]) < 3 * 16 + 10


def test_more_births_than_there_is_room_for_want_a_key_frame():
    frames = frames_of(SLICE_MAX + 2, 1)
    scene, found = play([frames[0].take(slice(0, 2)), frames[0].take(slice(0, SLICE_MAX))])
    assert scene.follow(frames[0], found[1][1]) is None


def test_births_go_to_slices_that_have_room():
    frames = frames_of(2 * KEY_SLICE, 1)
    crowd = frames[0].take(np.tile(np.argsort(frames[0].means[:, 0])[:1500], 4))
    draws = np.random.default_rng(0)
    near = crowd.means + draws.normal(0, 1e-3, crowd.means.shape)
    whole = joined(frames[0], replace(crowd, means=near.astype(np.float32)))
    _, found = play([frames[0], whole])
    sizes = [len(state["base"]) for state in found[1][1]]
    assert sum(sizes) == len(whole)
    assert max(sizes) == SLICE_MAX


def test_what_crosses_the_whole_lattice_is_born_anew():
    frame = frames_of(50, 1)[0]
    far = frame.means.copy()
    far[7] = (3e30, 0, 4)
    back = far.copy()
    back[7, 0] *= -1
    scene = GAUSS.scene(replace(planned([frame], 60), cells=BIN_MAX // 8).pack())
    slices = scene.key(replace(frame, means=far))
    _, states = coded(scene, slices, [None])
    coded(scene, scene.follow(replace(frame, means=back), states), states)


def test_nothing_drifts_where_everything_moves_a_little():
    draws = np.random.default_rng(0)
    frames = frames_of(600, 1)
    for _ in range(6):
        last = frames[-1]
        moved = last.means + draws.normal(0, 0.002, last.means.shape)
        frames.append(replace(last, means=moved.astype(np.float32)))
    plan = planned(frames, 60)
    scene, found = play(frames)
    for frame, (_, states) in zip(frames, found, strict=True):
        means = scene.gaussians(states).means
        away = np.abs(means[:, None] - frame.means).max(2).min(1)
        assert away.max() < 0.71 * plan.radius / plan.cells * 1.5


def test_what_moves_is_as_near_as_it_must_be_and_costs_less_than_the_nearest():
    frames = frames_of(600, 6, moving=0.5)
    plan = planned(frames, 60)
    scene = GAUSS.scene(plan.pack())
    payloads, states = coded(scene, scene.key(frames[0]), [None])
    sizes = {"chosen": 0, "nearest": 0}
    for frame in frames[1:]:
        before = Rows(states[0]["base"], states[0]["rest"])
        rows, order = key_rows(frame, plan)
        nearest, real = followed(frame.take(order[matched(before.base, rows.base)]), before, plan)
        (symbols,) = scene.follow(frame, states)
        steps = nearest.base - before.base
        moving = steps.any(1)
        plain = {"gates": moving * np.int32(CHANGES), "moves": steps[moving].reshape(-1)}
        sizes["nearest"] += size_of(coded(scene, [{**symbols, **plain}], states)[0])
        payloads, states = coded(scene, [symbols], states)
        sizes["chosen"] += size_of(payloads)
        away = np.abs(states[0]["base"] - real) / 2.0 ** shifts(states[0]["base"], plan)
        assert 0.5 < away.max() <= STAY + 1e-9
    assert sizes["chosen"] < 0.9 * sizes["nearest"]


def test_matching_gives_nobody_twice():
    draws = np.random.default_rng(0)
    old, new = (draws.integers(-4, 4, (count, WIDTH)).astype(np.int32) for count in (300, 260))
    new[:100] = old[100:200]
    found = matched(old, new)
    some = found[found != NOBODY]
    assert len(set(some)) == len(some) >= 100
    keeps = np.delete(np.arange(WIDTH), [6, 7, 8])
    assert (new[found[100:200]][:, keeps] == old[100:200][:, keeps]).all()


# ---- slices and layers


def test_a_slice_needs_no_other_and_one_that_is_lost_stays():
    _, scene, found = played(0)
    (_, before), (payloads, after) = found
    for number in (0, len(before) - 1):
        symbols = decoded(scene, payloads[number], before[number])
        for key, values in scene.after(symbols, before[number]).items():
            np.testing.assert_array_equal(values, after[number][key])
    held = scene.gaussians([before[0], *after[1:]])
    first = len(before[0]["base"])
    alone = scene.gaussians([before[0]])
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(held, name)[:first], getattr(alone, name))


@pytest.mark.parametrize("degree", range(4))
def test_streams_are_those_of_the_degree(degree):
    scene = GAUSS.scene(GAUSS.plan([empty(degree)], 50))
    assert scene.degree == degree
    assert scene.streams == (("base", "rest") if degree else ("base",))
    assert scene.layers == len(scene.streams) - 1


def test_without_its_layer_a_scene_has_the_same_gaussians_of_one_colour():
    frames, scene, found = played(2)
    held = [None] * len(found[0][1])
    for payloads, whole in found:
        after = []
        for payload, before in zip(payloads, held, strict=True):
            symbols = decoded(scene, {"base": payload["base"]}, before, layers=0)
            assert not symbols["rest"].any()
            after.append(scene.after(symbols, before))
        held = after
        plain, full = scene.gaussians(held), scene.gaussians(whole)
        for name in FIELDS[:4]:
            np.testing.assert_array_equal(getattr(plain, name), getattr(full, name))
        np.testing.assert_array_equal(plain.sh[:, 0], full.sh[:, 0])
        assert not plain.sh[:, 1:].any()
        assert full.sh[:, 1:].any()
    assert len(frames[1]) == len(plain)


@pytest.mark.parametrize("degree", [0, 2])
def test_counted_bits_are_the_bytes(degree):
    _, scene, found = played(degree)
    before = [None] * len(found[0][1])
    for payloads, after in found:
        counter, size = 0.0, 0
        for payload, state in zip(payloads, before, strict=True):
            bits = BitCounter()
            scene.traverse(bits, decoded(scene, payload, state), state)
            counter += bits.bits
            size += sum(8 * len(stream) - 40 for stream in payload.values() if stream)
        assert counter - 48 * len(payloads) < size < 1.01 * counter + 16 * len(payloads)
        before = after


# ---- what is hostile


@settings(SLOW, max_examples=120)
@given(st.data())
def test_damage_is_a_bitstream_error_or_other_gaussians(data):
    _, scene, found = played(2)
    frame, number = data.draw(st.integers(0, 1)), data.draw(st.integers(0, 2))
    payload, before = dict(found[frame][0][number]), found[0][1][number] if frame else None
    name = data.draw(st.sampled_from(sorted(payload)))
    stream = bytearray(payload[name])
    kind = data.draw(st.sampled_from(["flip", "cut", "noise"]))
    if kind == "flip":
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del stream[data.draw(st.integers(0, len(stream) - 1)) :]
    else:
        stream[1:] = np.random.default_rng(data.draw(st.integers(0, 99))).bytes(len(stream) - 1)
    try:
        symbols = decoded(scene, {**payload, name: bytes(stream)}, before)
        state = scene.after(symbols, before)
    except BitstreamError:
        return
    scene.gaussians([state])


@SLOW
@given(st.binary(max_size=60))
@example(b"")
def test_any_bytes_are_a_plan_or_none(data):
    whole = bytearray(GAUSS.plan([empty(3)], 60))
    for plan in (data, data[: len(whole)] + bytes(whole[len(data) :])):
        try:
            scene = GAUSS.scene(plan)
        except BitstreamError:
            continue
        assert Plan.parse(plan).pack() == plan
        assert len(scene.gaussians([hostile_state(scene.degree)])) == 4


def hostile_state(degree):
    """Four Gaussians whose numbers are as large as they may be."""
    base = np.full((4, WIDTH), BIN_MAX - 1, np.int32)
    base[2:] = -BIN_MAX
    base[1::2, NORMAL] *= -1
    base[1::2, TWIST] = 0
    rest = np.full((4, 3 * COEFFICIENTS[degree] - 3), BIN_MAX - 1, np.int32)
    return {"base": base, "rest": rest, "motion": base * 0, "active": base[:, 0] * 0}


@pytest.mark.parametrize(
    "change",
    [
        {"degree": 4},
        {"centre": (0, math.nan, 0)},
        {"centre": (1e20, 0, 0)},
        {"radius": 0},
        {"radius": math.inf},
        {"cells": 0},
        {"cells": BIN_MAX + 1},
        {"scale": 0},
        {"twist": 9},
        {"rest": 0},
        {"slims": (1, 2, 0)},
    ],
    ids=str,
)
def test_a_plan_with_a_number_out_of_its_range_is_refused(change):
    plan = planned(frames_of(9, 1), 60)
    GAUSS.scene(plan.pack())
    with pytest.raises(BitstreamError, match="plan"):
        GAUSS.scene(replace(plan, **change).pack())


def test_limits_hold_before_anything_is_made():
    _, scene, found = played(0)
    many = {"head": np.array([SLICE_MAX + 1, 3], np.int32), "new": None, "rest": None}
    with pytest.raises(BitstreamError, match="limit"):
        scene.traverse(Encoder(), many, None)
    before = found[0][1][0]
    state = {**before, "base": np.full_like(before["base"], BIN_MAX - 1)}
    symbols = dict(scene.follow(scene.gaussians(found[0][1]), found[0][1])[0])
    symbols["gates"] = np.full(len(before["base"]), CHANGES, np.int32)
    symbols["moves"] = np.ones(before["base"].size, np.int32)
    symbols["rest"] = np.zeros(0, np.int32)
    with pytest.raises(BitstreamError, match="within"):
        scene.after(symbols, state)
    with pytest.raises(ValueError, match="none of a slice"):
        scene.traverse(Encoder(), {**symbols, "moves": symbols["moves"] << 22}, before)


def test_weights_are_checked():
    GAUSS.load(GAUSS.tensors(), GAUSS.metadata())
    for bad in (even()[:-1], even() * 0, even().astype(np.int32)):
        with pytest.raises(ValueError, match="want"):
            Gauss(bad)
    assert len(even()) == CONTEXTS


def test_bytes_do_not_depend_on_threads():
    program = (
        "from tests.models.test_gauss_codec import *\n"
        "_, found = play(frames_of(600, 2, 1, turnover=0.2))\n"
        "streams = [p[k] for payloads, _ in found for p in payloads for k in sorted(p)]\n"
        "import hashlib\n"
        "print(hashlib.sha256(b''.join(streams)).hexdigest())"
    )
    found = set()
    for threads in ("1", "2"):
        names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        variables = {**os.environ, **dict.fromkeys(names, threads)}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=variables, capture_output=True, check=True, text=True)
        found.add(done.stdout)
    assert len(found) == 1


def test_rows_are_what_a_decoder_has():
    frame = frames_of(KEY_SLICE + 5, 1, 3)[0]
    plan = planned([frame], 60)
    rows, _ = key_rows(frame, plan)
    _, found = play([frame])
    for index, key in enumerate(Rows._fields):
        np.testing.assert_array_equal(
            np.concatenate([state[key] for state in found[0][1]]), rows[index]
        )


@pytest.mark.parametrize(("degree", "quality"), [(0, 60), (1, 5), (3, 100)])
def test_the_page_that_specifies_it_decodes_the_same(degree, quality):
    frames = frames_of(500, 3, degree, moving=0.2, turnover=0.2, flicker=0.2)
    plan = gauss_reference.Plan(GAUSS.plan(frames, quality))
    probabilities = GAUSS.tensors()["probabilities"].numpy().view(np.uint16)
    _, found = play(frames, quality)
    state = None
    for payloads, states in found:
        state = gauss_reference.decode(payloads[0], state, plan, probabilities)
        for key, values in states[0].items():
            np.testing.assert_array_equal(np.array(state[key]).reshape(values.shape), values)

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from codec.scenes import groups_of
from tests.video_clips import moving


def lengths(frames, longest):
    groups = list(groups_of(frames, longest))
    np.testing.assert_array_equal(np.concatenate(groups), np.stack(frames))
    return [len(group) for group in groups]


@given(st.integers(1, 60), st.integers(1, 12))
def test_a_scene_is_cut_into_few_groups_of_about_the_same_length(count, longest):
    found = lengths(list(np.full((count, 2, 3, 3), 9, np.uint8)), longest)
    assert sum(found) == count
    assert max(found) <= longest
    assert min(found[-2:]) >= min(count, longest) // 2
    assert len(found) <= -(-count // longest) + 1


def test_a_cut_starts_a_group():
    clip = moving(12, 60, 80)
    other = 255 - clip
    frames = [*clip[:7], *other[:5], *clip[7:]]
    assert lengths(frames, 64) == [7, 5, 5]


def test_movement_and_noise_are_no_cut():
    noise = np.random.default_rng(0).integers(-20, 20, (12, 60, 80, 3))
    assert lengths(list((moving(12, 60, 80) // 2 + 50 + noise).astype(np.uint8)), 64) == [12]
    x = np.arange(80)
    fast = [np.broadcast_to(((x + 9 * n) // 20 % 2 * 200)[:, None], (60, 80, 3)) for n in range(12)]
    changes = [np.abs(a - b.astype(float)).mean() for a, b in pairwise(fast)]
    assert min(changes) > 50
    assert lengths([frame.astype(np.uint8) for frame in fast], 64) == [12]


def test_no_more_than_two_groups_are_held():
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield np.zeros((2, 2, 3), np.uint8)

    groups = groups_of(endless(), 5)
    for number in range(1, 4):
        assert len(next(groups)) == 5
        assert taken <= 5 * number + 6


def test_no_frames_are_no_groups():
    assert list(groups_of([], 4)) == []

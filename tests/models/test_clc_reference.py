"""What references say: which squares begin at which, where attention looks, what a gate lets by."""

import pytest
import torch

from codec.models.clc.imitations import imitations
from codec.models.clc.reference import (
    Matching,
    Reference,
    choices_of,
    spread,
    start_of,
)

SIZES = {"M": 12, "core": 4, "Z": 3, "hyper": 8, "context": 5, "keys": 6, "width": 7}


@pytest.fixture
def references() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 2, 12, 16, 16)


def test_a_square_begins_at_the_reference_it_chose(references: torch.Tensor) -> None:
    choices = torch.zeros(2, 4, 4, dtype=torch.int64)
    choices[0, 1, 2], choices[1, 3, 0] = 1, 2
    start = start_of(references, choices)
    assert torch.equal(start[0, :, 4:8, 8:12], references[0, 0, :, 4:8, 8:12])
    assert torch.equal(start[1, :, 12:, :4], references[1, 1, :, 12:, :4])
    assert start.count_nonzero() == 2 * 12 * 16
    assert torch.equal(spread(choices)[0, 0, 4:8, 8:12], torch.ones(4, 4, dtype=torch.int64))


def test_a_square_chooses_what_leaves_least(references: torch.Tensor) -> None:
    y = torch.zeros(2, 12, 16, 16)
    y[0, :, :4, :4] = 3 * references[0, 1, :, :4, :4]  # in steps of a third
    y[1, :, 8:12, 4:8] = 3 * references[1, 0, :, 8:12, 4:8]
    choices = choices_of(y, references, torch.full((1, 12, 1, 1), 3.0), 1.0)
    expected = torch.zeros(2, 4, 4, dtype=torch.int64)
    expected[0, 0, 0], expected[1, 2, 1] = 2, 1
    assert torch.equal(choices, expected)


def test_without_trust_in_a_reference_none_is_chosen(references: torch.Tensor) -> None:
    y = references[:, 0] + 0.5 * references[:, 1]
    norm = torch.ones(1, 12, 1, 1)
    assert choices_of(y, references, norm, 1.0).all()
    assert not choices_of(y, references, norm, 0.01).any()


def test_attention_looks_at_the_same_place_before_training(references: torch.Tensor) -> None:
    match = Matching(core=4, context=5, keys=6)
    torch.nn.init.zeros_(match.query.weight)
    torch.nn.init.zeros_(match.query.bias)
    y_a = match(torch.zeros(2, 9, 16, 16), references)
    away = (y_a - references.mean(1)).square().mean()
    assert away < 0.05 * references.mean(1).square().mean()


def test_attention_follows_what_was_learned_of_offsets(references: torch.Tensor) -> None:
    match = Matching(core=4, context=5, keys=6)
    torch.nn.init.zeros_(match.query.weight)
    torch.nn.init.zeros_(match.query.bias)
    with torch.no_grad():  # two rows further down, one column to the right
        match.near.fill_(-100.0)
        match.near[(15 - 2) * 31 + 15 - 1] = 0.0
    y_a = match(torch.zeros(2, 9, 16, 16), references[:, :1])
    moved = references[:, 0, :, 2:, 1:]
    torch.testing.assert_close(y_a[:, :, :14, :15], moved, atol=1e-4, rtol=0)


@pytest.mark.parametrize("k", [0, 2, 4])
def test_a_share_of_all_gives_the_match_and_of_none_the_mean(
    references: torch.Tensor, k: int
) -> None:
    reference = Reference(**SIZES)
    part = slice(4) if k < 4 else slice(4, None)
    mean = torch.randn(2, 12, 16, 16)[:, part]
    decoded, features = torch.randn(2, 4, 16, 16), torch.randn(2, 5, 16, 16)
    start = references[:, 1]
    quality = torch.tensor([10.0, 90.0])
    arguments = (decoded, features, start, references, quality)
    with torch.no_grad():
        reference.gates[k].leave.bias.fill_(-100.0)
        torch.testing.assert_close(reference.fuse(k, mean, *arguments), mean)
        reference.gates[k].leave.bias.fill_(100.0)
        known = decoded + start[:, :4] * reference.known[k]
        y_a = reference.match[k](torch.cat([known, features], 1), references)
        found = reference.fuse(k, mean, *arguments)
    torch.testing.assert_close(found, (y_a - start)[:, part], atol=1e-5, rtol=1e-4)


def test_what_is_known_grows_step_by_step_to_all() -> None:
    known = Reference(**SIZES).known
    assert known.mean((1, 2, 3)).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_z_changes_only_by_squares_with_a_start(references: torch.Tensor) -> None:
    reference = Reference(**SIZES)
    torch.nn.init.normal_(reference.h_r.leave.weight)
    rest, norm = references[:, 0], torch.ones(1, 12, 1, 1)
    none = torch.zeros(2, 4, 4, dtype=torch.int64)
    one = none.clone()
    one[0, 2, 2] = 1
    empty = reference.change(torch.zeros_like(rest), none, norm)
    assert torch.equal(reference.change(rest, none, norm), empty)
    assert not torch.equal(reference.change(rest, one, norm)[0], empty[0])
    assert torch.equal(reference.change(rest, one, norm)[1], empty[1])


def test_imitations_are_pictures_and_mostly_like_their_own() -> None:
    torch.manual_seed(1)
    x = torch.nn.functional.interpolate(torch.rand(32, 3, 8, 8), 64, mode="bicubic").clamp(0, 1)
    found = imitations(x)
    assert found.shape == x.shape
    assert found.min() >= 0
    assert found.max() <= 1

    def alike(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).square().mean((1, 2, 3))

    strange = alike(found, x.roll(1, 0)) == 0
    assert 1 <= strange.sum() <= 12
    assert (alike(found, x) < alike(found, x.roll(1, 0))).float().mean() > 0.6
    assert 1 <= (alike(found, x) == 0).sum() <= 16

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode

from codec.entropy import BitCounter, code_lengths
from codec.errors import BitstreamError, UsageError
from codec.models.base import AbstractBookmark, GroupGeometry, Search
from codec.models.nerv import fit as fitting
from codec.models.nerv.fit import _Descent, _laplace_bits, fit
from codec.models.nerv.layout import CHANNELS, VARIANTS, Layout
from codec.models.nerv.network import draw, encoded_times, fresh
from codec.models.nerv.syntax import (
    Group,
    code_group,
    differences,
    layout_of,
    step_of,
    undo_differences,
)
from codec.models.nerv.tables import SHAPES, side_tables, value_tables
from codec.training.export_nerv import freeze
from tests.models import nerv_reference
from tests.video_clips import moving

VALUES, SIDE = value_tables(), side_tables()
GEOMETRY = GroupGeometry(48, 64, 4)
LAYOUTS = [Layout(variant, 4, 48, 64, 12) for variant in VARIANTS.values()]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def clip():
    return torch.from_numpy(moving(4, 168, 300)[:, 120:, 100:164]).permute(0, 3, 1, 2).contiguous()


def some_group(layout, spread=5.0, seed=0):
    draws = np.random.default_rng(seed)

    def laplace(*shape):
        return np.rint(draws.laplace(0, spread, shape)).astype(np.int32)

    count = len(layout.shapes) + layout.embedded
    return Group(
        layout,
        draws.integers(0, 128, count, np.int32),
        laplace(layout.weights),
        laplace(layout.embedded, *layout.embeddings),
    )


def drawn(layout, frames):
    weights = fresh(layout, generator())
    times = encoded_times(layout.frames)[:frames]
    embeddings = torch.ones(frames, layout.embedded, *layout.grid) if layout.embedded else None
    return draw(weights, layout, times, embeddings)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.variant.name)
def test_a_network_draws_frames_of_their_size_at_the_cost_that_is_said(layout):
    with FlopCounterMode(display=False) as counted:
        frames = drawn(layout, 2)
    assert frames.shape == (2, 3, 48, 64)
    assert counted.get_total_flops() / 2 / 2 / (48 * 64) == pytest.approx(layout.macs)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.variant.name)
def test_every_weight_matters(layout):
    weights = {name: value.requires_grad_() for name, value in fresh(layout, generator()).items()}
    embeddings = torch.rand(2, layout.embedded, *layout.grid, generator=generator())
    x = draw(weights, layout, encoded_times(4)[1:3], embeddings if layout.embedded else None)
    torch.autograd.backward((x * torch.rand(x.shape, generator=generator())).sum())
    assert list(weights) == list(layout.shapes)
    for name, value in weights.items():
        assert value.grad.abs().sum() > 0, name


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.variant.name)
def test_frames_are_those_of_the_specification(layout):
    group = some_group(layout, spread=2.0)
    steps = np.full_like(group.steps, 84)  # 2**-2.5
    group = Group(layout, steps, group.weights, group.embeddings)
    drawn = freeze(layout.variant.name).synthesise_frames(group.symbols(VALUES), GEOMETRY, [2])
    weights, at = {}, 0
    for name, shape in layout.shapes.items():
        size = math.prod(shape)
        weights[name] = group.weights[at : at + size].reshape(shape) * 2.0**-2.5
        at += size
    embedding = group.embeddings[:, 2] * 2.0**-2.5 if layout.embedded else layout.grid
    expected = nerv_reference.draw(weights, layout.variant.name, layout.strides, embedding, 2, 4)
    expected = expected[:, : layout.height, : layout.width]
    found = next(drawn)[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_frames_of_a_group_have_encodings_of_their_own():
    times = encoded_times(64)
    assert times.shape == (64, 80)
    assert times.abs().max() <= 1
    assert torch.pdist(times).min() > 0.1


@pytest.mark.parametrize(
    ("height", "width", "strides", "grid"),
    [
        (1, 1, (4,), (1, 1)),
        (95, 500, (4,), (24, 125)),
        (96, 97, (4, 2), (12, 13)),
        (240, 416, (4, 2, 2), (15, 26)),
        (720, 1280, (4, 2, 2, 2), (23, 40)),
        (1080, 1920, (4, 2, 2, 2, 2), (17, 30)),
    ],
)
def test_the_coarsest_features_are_of_about_the_same_size(height, width, strides, grid):
    layout = Layout(VARIANTS["boost"], 1, height, width, 32)
    assert (layout.strides, layout.grid) == (strides, grid)


def test_more_channels_are_more_parameters():
    counts = [Layout(VARIANTS["boost"], 8, 240, 416, c).parameters for c in CHANNELS]
    assert counts == sorted(set(counts))


@given(st.integers(0, 16), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_differences_are_undone(predictor, frames, seed):
    q = np.random.default_rng(seed).integers(-(1 << 15), 1 << 15, (frames, 2, 3), np.int32)
    np.testing.assert_array_equal(q, undo_differences(differences(q, predictor), predictor))


def test_what_stays_costs_nothing_and_what_moves_at_random_is_not_predicted():
    layout = LAYOUTS[-1]
    still = np.broadcast_to(np.arange(layout.grid[1], dtype=np.int32), layout.embeddings)
    noise = np.random.default_rng(0).integers(-9, 10, layout.embeddings, np.int32)
    group = some_group(layout)
    both = Group(layout, group.steps, group.weights, np.stack([still, noise]))
    predictors = both.symbols(VALUES)["frames"][2 * layout.embedded : 3 * layout.embedded]
    assert predictors[0] == 16
    assert predictors[1] < 6


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.variant.name)
def test_a_group_comes_back_from_its_symbols(layout):
    group = some_group(layout)
    found = Group.read(group.symbols(VALUES), GEOMETRY, layout.variant)
    assert found.layout == layout
    for name in ("steps", "weights", "embeddings"):
        np.testing.assert_array_equal(getattr(group, name), getattr(found, name))


@pytest.mark.parametrize("shape", ["laplace", "normal"])
@pytest.mark.parametrize("spread", [0.2, 1.0, 7.0, 30.0])
def test_weights_cost_within_2_percent_of_the_law_they_follow(spread, shape):
    layout = LAYOUTS[-1]
    draws = np.random.default_rng(0)
    weights = np.rint(getattr(draws, shape)(0, spread, layout.weights)).astype(np.int32)
    group = Group(
        layout, some_group(layout).steps, weights, np.zeros((2, *layout.embeddings), np.int32)
    )
    counter = BitCounter()
    variant = layout.variant
    code_group(counter, group.symbols(VALUES), GEOMETRY, variant, values=VALUES, side=SIDE)
    side = 14 * len(layout.shapes) + 10
    law = {"laplace": stats.laplace, "normal": stats.norm}[shape](0, spread)
    ideal = -np.log2(law.cdf(weights + 0.5) - law.cdf(weights - 0.5)).sum()
    most = 1.006 if spread >= 1 else 1.02  # by chance a narrow law's few values come otherwise
    assert 0.97 * ideal < counter.bits_of("network") - side < most * ideal


def test_all_zeros_cost_their_size_alone():
    layout = LAYOUTS[-1]
    zeros = np.zeros(layout.weights, np.int32)
    group = Group(layout, some_group(layout).steps, zeros,
                  np.zeros((2, *layout.embeddings), np.int32))  # fmt: skip
    counter = BitCounter()
    code_group(counter, group.symbols(VALUES), GEOMETRY, layout.variant, values=VALUES, side=SIDE)
    assert counter.bits < 14 * len(layout.shapes) + 18 * layout.embedded + 10


def test_coarser_steps_cost_less_and_mean_about_the_same():
    group = some_group(LAYOUTS[-1])
    needed = []
    for indexes in (0, 4, 8, 100):
        coarser = group.coarser(indexes)
        counter = BitCounter()
        code_group(counter, coarser.symbols(VALUES), GEOMETRY, LAYOUTS[-1].variant,
                   values=VALUES, side=SIDE)  # fmt: skip
        needed.append(counter.bits)
        if indexes == 8:
            means = coarser.weights * 2.0, group.weights
            assert np.abs(means[0] - means[1]).max() <= 1
    assert needed == sorted(needed, reverse=True)
    assert not group.coarser(100).weights.any()
    assert step_of(np.array([8], np.int32)) == 2 * step_of(np.array([0], np.int32))


def test_a_network_that_is_too_large_is_refused():
    with pytest.raises(BitstreamError, match="the limit"):
        layout_of(CHANNELS[-1], GroupGeometry(1, 1 << 22, 64), VARIANTS["boost"])


@pytest.mark.parametrize("spread", [0.3, 1.5, 10.0])
def test_the_rate_in_the_loss_is_that_of_the_tables(spread):
    values = torch.from_numpy(np.random.default_rng(1).laplace(0, spread, 40_000))
    tensors = torch.zeros(len(values), dtype=torch.long)
    noisy = float(_laplace_bits(values.float(), tensors, 1, generator()))
    q = values.round().numpy().astype(np.int32)
    real = min(
        code_lengths(q, VALUES, np.full(len(q), table, np.int32)).sum() for table in range(SHAPES)
    )
    # Noise blurs what rounding leaves sharp: never less, and hardly more where steps are fine.
    assert 0.97 * real < noisy < (1.6 if spread < 1 else 1.05) * real


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.variant.name)
@pytest.mark.parametrize("each", [2.5, 5.0])
def test_a_fit_comes_closer_and_keeps_to_its_bits(layout, each):
    x, notes = clip(), []
    bits = each * layout.parameters
    search = Search(watch=lambda part, note: notes.append((part, note)))
    group = fit(x, layout, bits, 300, search)
    counter = BitCounter()
    code_group(counter, group.symbols(VALUES), GEOMETRY, layout.variant, values=VALUES, side=SIDE)
    assert counter.bits < 1.05 * bits + 14 * len(layout.shapes)
    frames = torch.cat(list(freeze(layout.variant.name).synthesise_frames(
        group.symbols(VALUES), GEOMETRY, range(4))))  # fmt: skip
    flat = x.float().mean((0, 2, 3), keepdim=True) / 255
    error = (frames - x / 255).square().mean()
    assert error < (0.5 if each == 5 else 0.9) * (flat - x / 255).square().mean()
    assert [part for part, _ in notes] == sorted(part for part, _ in notes)
    assert "dB" in notes[0][1]
    assert "bpp" in notes[-1][1]


@pytest.mark.parametrize("damage", [math.nan, 3.0])
def test_a_collapse_goes_back_to_the_best(damage):
    descent = _Descent(clip(), LAYOUTS[-1], 1e5)
    for _ in range(60):
        descent.step(0.3)
    descent.look()
    kept = [leaf.detach().clone() for leaf in descent._state.leaves()]
    with torch.no_grad():
        descent._state.weights.mul_(damage)
    for _ in range(20):
        descent.step(0.3)
    descent.look()
    for before, now in zip(kept, descent._state.leaves(), strict=True):
        assert torch.equal(before, now)
    for _ in range(5):
        descent.step(0.3)
    descent.look()
    assert math.isfinite(float(descent._state.weights.detach().sum()))


def test_an_interrupt_gives_what_there_is_or_is_let_through():
    import threading

    def stop(part, note):
        raise KeyboardInterrupt

    layout = LAYOUTS[-1]
    with pytest.raises(KeyboardInterrupt):
        fit(clip(), layout, 1e5, 100, Search(watch=stop))
    event = threading.Event()
    group = fit(clip(), layout, 1e5, 100, Search(watch=stop, interrupted=event))
    assert event.is_set()
    assert group.layout == layout


class Memory(AbstractBookmark):
    """A bookmark that is copied, as a file would be, and forgotten with the test."""

    def __init__(self):
        self.state = None

    def find(self):
        return self.state

    def keep(self, state):
        self.state = {name: value.clone() for name, value in state.items()}


SMALL = Layout(VARIANTS["light"], 4, 16, 20, 8)


def fitted(layout=SMALL, steps=140, **options):
    x = clip()[:, :, : layout.height, : layout.width].contiguous()
    return fit(x, layout, 4.0 * layout.parameters, steps, Search(**options))


def killed(layout=SMALL, steps=140, *, notes=1, **options):
    """A bookmark at the step before a fit was killed where it made so many notes."""
    memory, made = Memory(), []

    def die(part, note):
        made.append(note)
        if len(made) == notes:
            raise MemoryError

    with pytest.raises(MemoryError):
        fitted(layout, steps, watch=die, bookmark=memory, **options)
    return memory


def assert_same(a, b):
    for name in ("steps", "weights", "embeddings"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.fixture
def always_kept(monkeypatch):
    monkeypatch.setattr(fitting, "KEPT_SECONDS", 0.0)


@pytest.mark.usefixtures("always_kept")
@pytest.mark.parametrize(("variant", "notes"), [("light", 1), ("light", 2), ("nerv", 2)])
def test_a_fit_that_was_killed_ends_as_if_it_had_not_been(variant, notes):
    layout = Layout(VARIANTS[variant], 4, 16, 20, 8)
    memory = killed(layout, 200, notes=notes)
    assert memory.state["numbers"][0] == 50 * notes - 1
    assert memory.state["numbers"][3] == (notes == 2)  # whether it rounds
    parts = []
    found = fitted(layout, 200, watch=lambda part, note: parts.append(part), bookmark=memory)
    assert_same(found, fitted(layout, 200))
    assert parts == [(50 * k - 1) / 200 for k in range(notes, 5)]


@pytest.mark.usefixtures("always_kept")
@pytest.mark.parametrize(("allowed", "further"), [(60.0, 10), (90.0, 40), (30.0, 0)])
def test_seconds_before_a_fit_was_killed_are_of_those_allowed(monkeypatch, allowed, further):
    ticks = iter(range(10**6))
    monkeypatch.setattr(fitting.time, "monotonic", lambda: float(next(ticks)))
    memory = killed(steps=10**9, seconds=60.0)
    assert memory.state["numbers"][:3].tolist() == [49, 49.0, 49 / 60]
    fitted(steps=10**9, seconds=allowed, bookmark=memory)
    assert memory.state["numbers"][:2].tolist() == [49 + further, 49.0 + further]


@pytest.mark.usefixtures("always_kept")
def test_a_schedule_does_not_go_back_when_there_is_more_time():
    memory, parts = killed(steps=100), []
    fitted(steps=200, watch=lambda part, note: parts.append(part), bookmark=memory)
    assert parts == [0.48, 0.495, 0.745, 0.995]


def test_a_state_is_all_of_another_descent():
    first, second = (_Descent(clip()[:, :, :16, :20], SMALL, 1e4) for _ in range(2))
    for number in range(30):
        first.step(number / 60)
    first.look()
    first.step(0.6)
    assert second.go_on(first.state())
    for (name, ours), theirs in zip(first.state().items(), second.state().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert all(map(torch.equal, first._best, second._best))


@pytest.mark.usefixtures("always_kept")
def test_what_was_kept_of_another_network_is_not_taken(caplog):
    memory = killed(Layout(VARIANTS["light"], 4, 16, 20, 12))
    for state in (memory.state, {}, {"numbers": torch.zeros(6)}):
        memory.state = state
        assert_same(fitted(steps=20, bookmark=memory), fitted(steps=20))
    assert len(caplog.records) == 3
    assert "begins again" in caplog.text


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch asks for it as it compiles
def test_a_gpu_draws_about_the_same_in_half_precision_by_one_graph(monkeypatch):
    graphs, compiled = [], torch.compile

    def graph_of(module, inputs):
        graphs.append(module)
        return module.forward

    def compiled_here(function, **options):
        assert options == {"mode": "reduce-overhead", "dynamic": False}
        return compiled(function, backend=graph_of, dynamic=False, fullgraph=True)

    monkeypatch.setattr(torch, "compile", compiled_here)
    for frames in (4, 3):
        layout = Layout(VARIANTS["light"], frames, 48, 64, 8)
        plain, half = (_Descent(clip()[:frames], layout, 1e5) for _ in range(2))
        half._compile()
        for share in (0.1, 0.5):  # in floats, and rounded
            for descent in (plain, half):
                descent.step(share)
            for number in range(frames):
                pair = plain._frame(number), half._frame(number)
                assert pair[1].dtype == torch.float32
                assert not torch.equal(*pair)
                torch.testing.assert_close(*pair, atol=0.02, rtol=0)
        assert all(leaf.grad.dtype == torch.float32 for leaf in half._state.leaves())
    assert len(graphs) == 1  # of both groups


def test_without_triton_a_gpu_draws_by_operations(monkeypatch):
    monkeypatch.setattr("codec.entropy.device.has_triton", lambda: False)
    monkeypatch.setattr("torch.compile", None)
    descent = _Descent(clip()[:2], Layout(VARIANTS["light"], 2, 48, 64, 8), 1e5)
    plain = descent._frame(0)
    descent._compile()
    assert not torch.equal(plain, descent._frame(0))  # in half precision
    torch.testing.assert_close(plain, descent._frame(0), atol=0.02, rtol=0)


def test_a_budget_chooses_the_size_of_a_network():
    family = freeze("boost")
    geometry = GroupGeometry(240, 416, 60)
    found = [family.layout_for(geometry, bits).channels for bits in (1e4, 4e5, 8e5, 1e9)]
    assert found[0] == CHANNELS[0]
    assert found[-1] == CHANNELS[-1]
    assert found == sorted(set(found))
    for bits, channels in zip((4e5, 8e5), found[1:3], strict=True):
        layout = layout_of(channels, geometry, family.variant)
        assert 0.75 * bits < 4 * layout.parameters < bits


def test_bits_that_hold_nothing_are_refused():
    family = freeze("boost")
    with pytest.raises(UsageError, match="smallest network"):
        family.analyse_group(clip(), GEOMETRY, 100.0, Search(seconds=0.0))

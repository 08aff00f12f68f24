"""Laws of the rasteriser for a GPU, in Triton's interpreter, which conftest.py asks for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from codec.models.gauss import device, host
from codec.models.gauss.raster import _loops, _Raster, rasterize_densely
from tests.models.test_gauss_raster import assert_nearest_in_front, flat

# With TRITON_INTERPRET=0 the same laws run on a GPU.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = DEVICE.type == "cuda" and os.environ["TRITON_INTERPRET"] == "0"


def with_gradients(draw, given_, width, height):
    """Picture, opacity and the gradients of all that has one, on the CPU."""
    leaves = [value.detach().clone().requires_grad_() for value in given_[:4]]
    rgb, alpha = draw(*leaves, given_[4], width, height)
    generator = torch.Generator().manual_seed(0)
    sides = torch.randn(height, width, 4, generator=generator, dtype=rgb.dtype).to(rgb.device)
    (torch.cat([rgb, alpha[..., None]], 2) * sides).sum().backward()
    return [found.detach().cpu() for found in (rgb, alpha, *(leaf.grad for leaf in leaves))]


def by(loops):
    def draw(means2d, conics, colors, opacities, depths, width, height):
        together = torch.cat([means2d, conics, opacities[:, None], colors], 1)
        return _Raster.apply(together, depths, width, height, loops)

    return draw


def moved(given_):
    return [value.to(DEVICE) for value in given_]


def assert_near(ours, theirs, *, light, relative):
    for number, (own, other) in enumerate(zip(ours, theirs, strict=True)):
        bound = light if number < 2 else relative * other.abs().max().item()
        torch.testing.assert_close(own, other, atol=bound, rtol=0)


@pytest.mark.parametrize(
    ("count", "width", "height", "dtype", "opaque"),
    [
        (10, 32, 27, torch.float32, 0.5),
        (8, 19, 10, torch.float64, 9.0),
    ],
)
def test_it_draws_what_the_cpu_draws_and_gradients_are_those(count, width, height, dtype, opaque):
    given_ = flat(count, width, height, seed=1, dtype=dtype, opaque=opaque)
    theirs = with_gradients(by(host), given_, width, height)
    assert all(other.abs().max() > 0 for other in theirs)
    ours = with_gradients(by(device), moved(given_), width, height)
    assert_near(ours, theirs, light=1e-5, relative=1e-5)


def test_it_draws_what_the_dense_reference_draws_and_gradients_are_those():
    given_ = flat(8, 17, 12, seed=2)
    ours = with_gradients(by(device), moved(given_), 17, 12)
    theirs = with_gradients(rasterize_densely, given_, 17, 12)
    assert_near(ours, theirs, light=1e-9, relative=1e-9)


@pytest.mark.parametrize("opaque", [0.02, 9.0])
def test_tiles_of_many_are_drawn_until_they_are_dark(opaque):
    given_ = flat(80, 4, 3, opaque=opaque, dtype=torch.float32)
    ours, theirs = by(device)(*moved(given_), 4, 3), by(host)(*given_, 4, 3)
    assert_near([own.cpu() for own in ours], theirs, light=1e-5, relative=0)
    assert (theirs[1].min() > 0.99) == (opaque > 1)


def test_the_nearest_is_in_front_and_of_equals_the_first():
    assert_nearest_in_front(lambda *given_: by(device)(*moved(given_[:5]), *given_[5:]))


def test_what_is_not_drawn_has_no_gradient():
    for count in (0, 3):
        given_ = flat(count, 9, 9)
        given_[0][:] = -1000
        found = with_gradients(by(device), moved(given_), 9, 9)
        assert all((value == 0).all() for value in found)


def test_where_tensors_are_says_who_draws_them(monkeypatch):
    assert _loops(torch.device("cpu")) is host
    assert _loops(torch.device("cuda", 1)) is device
    monkeypatch.setattr("codec.entropy.device.has_triton", lambda: False)
    assert _loops(torch.device("cuda")) is host


def test_the_same_is_drawn_to_the_bit_each_time():
    count, width, height = (2000, 100, 80) if ON_GPU else (10, 20, 18)
    given_ = flat(count, width, height, opaque=0.3)
    rgb, alpha = by(device)(*moved(given_), width, height)
    assert rgb.device.type == alpha.device.type == DEVICE.type
    first, second = (with_gradients(by(device), moved(given_), width, height) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert_near(first, with_gradients(by(host), given_, width, height), light=1e-4, relative=1e-3)


COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from codec.models.gauss import device, triton_kernels

for real in ("*fp32", "*fp64"):
    scene = dict(flat=real, cuts=real, starts="*i32", members="*i32")
    kept = dict(left=real, last="*i32")
    size = dict(width="i32", height="i32", columns="i32")
    to = dict(to_rgb=real, to_left=real, each=real)
    for name, types, warps in (
        ("draw", {**scene, "rgb": real, **kept, **size}, device.WARPS),
        ("draw_back", {**scene, "slots": "*i32", **kept, **to, **size}, device.WARPS_BACK),
    ):
        source = ASTSource(getattr(triton_kernels, name), types)
        target = GPUTarget("cuda", 90, 32)
        assert compile(source, target=target, options={"num_warps": warps}).asm["cubin"]
"""


def test_the_kernels_compile_for_a_gpu_where_there_is_none(tmp_path):
    # The interpreter takes more than the compiler does.
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", COMPILE], cwd=root, env=environment, check=True)

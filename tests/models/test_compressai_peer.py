"""What an imported network and CompressAI itself make of the same weights and the same pixels.

Needs `pip install ".[compressai,test]"`, in an environment of its own, and `-m compressai`.
"""

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor, nn

import codec
from codec.errors import BitstreamError
from codec.importing import add_weights
from codec.models.compressai.freezing import freeze
from codec.models.compressai.network import ARCHITECTURES
from codec.weights import Zoo
from tests.models.compressai_states import state_of

pytestmark = [
    pytest.mark.compressai,
    pytest.mark.filterwarnings("ignore"),  # CompressAI's import alone gives some
]

N, M = 16, 32
TABLES = ("_offset", "_quantized_cdf", "_cdf_length", "scale_table", "target", "bound", "pedestal")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def peer(arch: str) -> nn.Module:
    """CompressAI's network with weights of ours, its tables computed."""
    from compressai.models import FactorizedPrior, MeanScaleHyperprior, ScaleHyperprior

    kinds = {
        "bmshj2018-factorized": FactorizedPrior,
        "bmshj2018-hyperprior": ScaleHyperprior,
        "mbt2018-mean": MeanScaleHyperprior,
    }
    net = kinds[arch](N, M).eval()
    ours, theirs = state_of(arch, N=N, M=M), net.state_dict()
    assert all(name.endswith(TABLES) for name in ours.keys() ^ theirs.keys())
    net.load_state_dict(theirs | ours)
    net.update(force=True)
    return net


@pytest.fixture
def zoo(arch: str, peer: nn.Module, tmp_path) -> Zoo:
    add_weights(freeze(peer.state_dict(), arch), tmp_path / "peer.safetensors", "random")
    return Zoo(tmp_path)


def photo(height: int, width: int) -> Tensor:
    return torch.from_numpy(data.astronaut()[:height, :width].copy()).permute(2, 0, 1)[None] / 255


@torch.inference_mode()
def coded(net: nn.Module, x: Tensor) -> tuple[int, Tensor]:
    """Bytes of CompressAI's strings, and what it makes of them; x is padded to whole z."""
    height, width = x.shape[2:]
    x = nn.functional.pad(x, (0, -width % 64, 0, -height % 64), "replicate")
    made = net.compress(x)
    size = sum(len(string) for strings in made["strings"] for string in strings)
    return size, net.decompress(made["strings"], made["shape"])["x_hat"][:, :, :height, :width]


@pytest.mark.parametrize(("height", "width"), [(512, 512), (192, 320), (64, 64)])
def test_the_reconstruction_is_the_same(peer: nn.Module, zoo: Zoo, height: int, width: int) -> None:
    x = photo(height, width)
    model = codec.load_model("compressai", zoo=zoo, device="cpu")
    x_hat = model.decompress(model.compress(x))
    expected = coded(peer, x)[1]
    assert expected.std() > 0.02
    torch.testing.assert_close(x_hat, expected.clamp(0, 1), atol=1e-3, rtol=0)


def test_only_the_border_differs_where_latents_beyond_the_image_are_not_coded(
    peer: nn.Module, zoo: Zoo
) -> None:
    x = photo(200, 311)  # 13x20 latents, of which CompressAI codes 16x20
    model = codec.load_model("compressai", zoo=zoo, device="cpu")
    x_hat, expected = model.decompress(model.compress(x)), coded(peer, x)[1].clamp(0, 1)
    torch.testing.assert_close(x_hat[:, :, :168], expected[:, :, :168], atol=1e-3, rtol=0)
    assert (x_hat[:, :, 168:] - expected[:, :, 168:]).abs().max() > 1e-3


def test_the_file_is_as_large_as_the_strings(peer: nn.Module, zoo: Zoo) -> None:
    x = photo(512, 512)
    stream = codec.load_model("compressai", zoo=zoo, device="cpu").compress(x)
    size = coded(peer, x)[0]
    assert size > 8000
    assert len(stream) == pytest.approx(size, rel=0.01)


def test_a_stream_that_is_cut_is_refused(zoo: Zoo) -> None:
    model = codec.load_model("compressai", zoo=zoo, device="cpu")
    stream = model.compress(photo(96, 96))
    for size in np.linspace(0, len(stream) - 1, 50).astype(int):
        with pytest.raises(BitstreamError):
            model.decompress(stream[:size])


def test_tables_that_a_checkpoint_holds_change_nothing(arch: str, peer: nn.Module) -> None:
    bare = freeze(state_of(arch, N=N, M=M), arch).tensors()
    whole = freeze(peer.state_dict(), arch).tensors()
    assert all(torch.equal(bare[name], whole[name]) for name in bare)

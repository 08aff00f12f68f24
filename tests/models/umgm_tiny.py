"""A network of `umgm` so small that a test may train and freeze it."""

import torch

from codec.models.umgm import UmgmConfig, UmgmNetwork
from codec.models.umgm.mixture import LEVEL_UNIT

TINY = UmgmConfig(
    inner=8,
    encoder_blocks=1,
    decoder_blocks=1,
    hyper=8,
    context=8,
    z=((2, 2, 16),),
    core=((2, 1, 16), (1, 2, 16)),
    rest=((2, 2, 8), (1, 4, 16)),
    layers=(1, 2),
)


def tiny(config: UmgmConfig = TINY) -> UmgmNetwork:
    """Seeded; its codewords are likely integers, so that much is not 0 and much is."""
    torch.manual_seed(3)
    network = UmgmNetwork(config)
    for part in (network.z, network.core, network.rest):
        part.start(torch.full((part.channels,), 1.2))
    with torch.no_grad():
        network.gain.knots.copy_(torch.linspace(1.0, 3.0, 9)[:, None].expand(9, 12))
        network.inverse_gain.knots.copy_(-network.gain.knots)
        network.g_a.down.weight.mul_(8)
        network.h_s_scale.level.knots.fill_(LEVEL_UNIT)
        for context in network.scale_context:
            context.leave.weight.mul_(1000)
    return network

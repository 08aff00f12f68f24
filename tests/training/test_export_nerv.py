import pytest
import torch

from codec.models.nerv import Nerv
from codec.models.nerv.layout import VARIANTS
from codec.training.export_nerv import export, freeze
from codec.weights import SHIPPED, Zoo


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_weight_file_holds_its_variant_and_tables(tmp_path, variant):
    export(variant, "nerv/mine", tmp_path)
    (entry,) = Zoo(tmp_path).manifest()
    family = Zoo(tmp_path).load(entry)
    assert isinstance(family, Nerv)
    assert family.metadata() == {"variant": variant}
    assert tuple(entry.streams) == family.streams
    for name, tensor in freeze(variant).tensors().items():
        assert torch.equal(tensor, family.tensors()[name])


def test_what_ships_is_what_is_exported_now(tmp_path):
    for variant, name in (("boost", "nerv/base"), ("nerv++", "nerv/plus"), ("light", "nerv/light")):
        export(variant, name, tmp_path)
        assert Zoo(tmp_path).find(name).sha256 == SHIPPED.find(name).sha256
    assert SHIPPED.find("nerv").name == "nerv/light"

import json
from dataclasses import replace

import pytest

from codec.errors import BitstreamError, ModelError, UsageError
from codec.registry import FAMILIES, family_by_id, family_by_name
from codec.weights import SHIPPED, Zoo
from tests.codec.toy import FAMILIES as TOYS
from tests.codec.toy import make_zoo


@pytest.fixture
def own(tmp_path):
    """A zoo that a test may damage."""
    return make_zoo(tmp_path / "zoo")


def rewrite(zoo, change):
    path = zoo.folder / "manifest.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def test_ids_and_names_of_families_are_never_shared():
    assert len({family.id for family in FAMILIES}) == len(FAMILIES)
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert family_by_name("iscs").id == 1  # in the header of every stream there is


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_of_the_registry_can_be_loaded(family):
    assert family_by_id(family.id) is family_by_name(family.name) is family
    assert callable(family.load().load)


def test_an_unknown_family_is_the_fault_of_whoever_names_it():
    with pytest.raises(UsageError, match="iscs"):
        family_by_name("nothing")
    with pytest.raises(BitstreamError, match="4711"):
        family_by_id(4711)


def test_every_shipped_weight_file_is_what_the_manifest_says():
    for entry in SHIPPED.manifest():
        assert SHIPPED.load(entry).streams
        assert (SHIPPED.folder / entry.file).stat().st_size <= 15_000_000
        assert SHIPPED.find(entry.name).name == entry.name
        assert entry.name.startswith(f"{entry.family}/")


def test_a_family_s_name_means_its_default(own):
    assert own.find("toy").name == "toy/sharp"
    rewrite(own, lambda rows: (rows[0].update(default=False), rows[1].update(default=True)))
    assert own.find("toy").name == "toy/blurry"


def test_a_variant_s_name_means_the_newest_of_it(own):
    rewrite(own, lambda rows: rows.append(rows[0] | {"parameters": 2}))
    assert own.find("toy/sharp").parameters == 2


def test_a_stream_finds_the_weights_that_made_it_even_after_newer_ones(own):
    old = own.find("toy/sharp")
    rewrite(own, lambda rows: rows.append(rows[0] | {"sha256": "00" * 32}))
    assert own.find_by_id(TOYS[0], old.model_id) == old


def test_weights_that_are_not_here_are_named(own):
    with pytest.raises(ModelError, match="0102030405060708"):
        own.find_by_id(TOYS[0], bytes(range(1, 9)))


def test_altered_weights_are_refused(own):
    entry = own.find("toy")
    path = own.folder / entry.file
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(ModelError, match="SHA-256"):
        own.load(entry)


def test_missing_weights_are_refused(own):
    entry = own.find("toy")
    (own.folder / entry.file).unlink()
    with pytest.raises(ModelError, match="No such file"):
        own.load(entry)


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"name": "x"}]', '{"a": 1}'])
def test_a_manifest_that_is_none_is_refused(text, own):
    (own.folder / "manifest.json").write_text(text)
    with pytest.raises(ModelError, match="list of weights"):
        own.manifest()


def test_a_missing_manifest_is_refused(tmp_path):
    with pytest.raises(ModelError, match="list of weights"):
        Zoo(tmp_path).manifest()


def test_weights_of_another_family_are_refused(own):
    entry = own.find("toy")
    with pytest.raises(ModelError, match="do not fit iscs"):
        replace(own, families=FAMILIES).load(replace(entry, family="iscs"))


def test_a_family_without_weights_says_so(own):
    rewrite(own, list.clear)
    with pytest.raises(ModelError, match="no weights of toy"):
        own.find("toy")

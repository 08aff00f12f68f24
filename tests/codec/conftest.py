"""What the tests of the facade share: weights that cost nothing, and images of every kind."""

import pytest

from tests.codec.toy import make_zoo


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    return make_zoo(tmp_path_factory.mktemp("zoo"))

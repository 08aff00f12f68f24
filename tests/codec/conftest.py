"""What the tests of the facade share: weights that cost nothing, and images of every kind."""

import pytest

from codec import cli
from tests.codec.toy import make_zoo


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    return make_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture
def run(zoo, capsys):
    """Run a command line in this process: its exit code, standard output and error."""

    def call(*words):
        code = cli.main([str(word) for word in words], zoo=zoo)
        out, err = capsys.readouterr()
        return code, out, err

    return call

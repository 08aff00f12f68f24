import io
import time

import pytest

from codec.progress import Bar, Stopwatch


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_part_inside_another_counts_only_once():
    watch = Stopwatch()
    with watch.part("transform"):
        time.sleep(0.02)
        with watch.part("entropy"):
            time.sleep(0.05)
    seconds = watch.seconds
    assert seconds["entropy"] >= 0.05
    assert 0.02 <= seconds["transform"] < 0.05
    assert seconds["load"] == 0
    assert seconds["total"] >= 0.07


def test_a_part_that_fails_counts_too():
    def fail(watch):
        with watch.part("load"):
            time.sleep(0.01)
            raise KeyError

    watch = Stopwatch()
    with pytest.raises(KeyError):
        fail(watch)
    assert watch.seconds["load"] >= 0.01


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()], ids=["file", "terminal"])
def test_a_short_job_has_no_bar(out):
    bar = Bar(out)
    bar(0.5)
    bar.close()
    assert out.getvalue() == ""


def test_a_long_job_has_a_bar_on_a_terminal_only_and_it_goes_away():
    terminal, file = Terminal(), io.StringIO()
    bars = [Bar(terminal), Bar(file)]
    time.sleep(2.05)
    for bar in bars:
        bar(0.5, "30.1 dB")
        bar.close()
    assert " 50% 2 s left" in terminal.getvalue()
    assert "30.1 dB" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert file.getvalue() == ""

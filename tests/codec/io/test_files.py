import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from codec.errors import InputError, UsageError
from codec.io.files import check_output, read_bytes, write_whole


def test_a_file_is_written_whole_and_alone(tmp_path):
    path = tmp_path / "a"
    write_whole(path, b"data")
    assert path.read_bytes() == b"data"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "plain").touch()
    write_whole(tmp_path / "a", b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_pipe_is_written_to_as_it_is(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_output(pipe, force=False)
    found = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, b"data")
    reader.join()
    assert found == [b"data"]
    assert pipe.is_fifo()


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as if the disk were full
    try:
        with pytest.raises(UsageError, match="cannot be written"):
            write_whole(path, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        write_whole(tmp_path / "no" / "folder", b"")


def test_a_folder_that_may_not_be_written_to_is_refused_and_keeps_its_file():
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a").write_bytes(b"old")
        folder.chmod(0o555)
        try:
            if user == 0:  # root may write everywhere
                os.seteuid(65534)
            with pytest.raises(UsageError, match="cannot be written: Permission denied"):
                write_whole(folder / "a", b"new")
        finally:
            os.seteuid(user)
        folder.chmod(0o755)
        assert (folder / "a").read_bytes() == b"old"
        assert [entry.name for entry in folder.iterdir()] == ["a"]


WRITE = """
import sys
from codec.io.files import write_whole
print(flush=True)
while True:
    write_whole(sys.argv[1], sys.argv[2].encode() * 3_000_000)
"""


def writer(path, letter):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(path), letter],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    process.stdout.readline()
    return process


def is_whole(data):
    return data in (b"old", b"a" * 3_000_000, b"b" * 3_000_000)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_ended_while_it_writes_leaves_a_whole_file(end, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    for wait in (0, 0.004, 0.011):
        process = writer(path, "a")
        time.sleep(wait)
        process.send_signal(end)
        process.communicate()
        assert is_whole(path.read_bytes())
        if end == signal.SIGINT:
            assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_processes_and_threads_that_write_one_name_leave_the_whole_file_of_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    processes = [writer(path, letter) for letter in "ab"]
    threads = [
        threading.Thread(target=write_whole, args=(path, letter * 3_000_000))
        for letter in (b"a", b"b") * 4
    ]
    for thread in threads:
        thread.start()
        assert is_whole(path.read_bytes())
    for thread in threads:
        thread.join()
        assert is_whole(path.read_bytes())
    for process in processes:
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert is_whole(path.read_bytes())
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_outputs_are_checked_beforehand(tmp_path):
    path = tmp_path / "a"
    check_output(path, force=False)
    path.touch()
    check_output(path, force=True)
    check_output("-", force=False)
    for bad, force in ((path, False), (tmp_path, True), (tmp_path / "no" / "a", True)):
        with pytest.raises(UsageError):
            check_output(bad, force=force)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match="cannot be read"):
            read_bytes(path)

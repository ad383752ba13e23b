"""Downloads against a server that drops, lies, stalls and is replaced."""

import hashlib
import logging
import random
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import mriflow.download as stage
from http_server import FileServer
from mriflow.base.errors import UserError
from mriflow.download import download

SIZE = 1_000_000
CONTENT = random.Random(1).randbytes(SIZE)
OTHER = random.Random(2).randbytes(SIZE)


def md5_of(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


MD5 = md5_of(CONTENT)


@pytest.fixture(autouse=True)
def quick_and_direct(monkeypatch, caplog):
    monkeypatch.setattr(stage, "PAUSE", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    caplog.set_level(logging.INFO)


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "scans.tar").write_bytes(CONTENT)
    (folder / "mirror.tar").write_bytes(CONTENT)
    (folder / "other.tar").write_bytes(OTHER)
    with FileServer(folder) as server:
        yield server


@pytest.fixture
def file(tmp_path):
    return tmp_path / "resources" / "scans.tar"


def part_of(file: Path) -> Path:
    return file.with_name(file.name + ".part")


def is_all_there_is(file: Path, content: bytes = CONTENT) -> bool:
    """Say whether the file is right and nothing else was left beside it."""
    return file.read_bytes() == content and [path.name for path in file.parent.iterdir()] == [file.name]


def closed_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/scans.tar"


def leave_part(server: FileServer, file: Path, fraction: float = 0.4, path: str = "scans.tar", **known) -> int:
    """Let one download of `path` break at `fraction`; return the bytes kept."""
    server.misbehave(path, drop_at=fraction)
    with pytest.raises(UserError, match="connection broke off"):
        download(file, urls=[server.url(path)], attempts=1, **known)
    server.behave()
    server.requests.clear()
    assert not file.exists()
    kept = part_of(file).stat().st_size
    assert kept == int(SIZE * fraction)
    return kept


def start(file: Path, *flags: str) -> subprocess.Popen:
    """Start the command as a user would; Ctrl-C reaches it even where the tests run in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "mriflow.download", "--file", str(file), *flags],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_part(file: Path, size: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 20
    while not (part_of(file).exists() and part_of(file).stat().st_size >= size):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.02)


def test_a_file_comes_whole_in_one_request(server, file):
    assert download(file, urls=[server.url("scans.tar")], md5=[MD5], size=SIZE) == file
    assert is_all_there_is(file)
    assert [(request.range, request.sent) for request in server.requests] == [(None, SIZE)]


def test_a_file_without_known_md5_and_size_comes_whole(server, file):
    download(file, urls=[server.url("scans.tar")])
    assert is_all_there_is(file)


def test_a_server_that_tells_no_length_is_good_enough_when_the_md5_is_known(server, file):
    server.misbehave("scans.tar", length=False)
    download(file, urls=[server.url("scans.tar")], md5=[MD5])
    assert is_all_there_is(file)


def test_a_file_that_ends_early_without_a_told_length_is_not_taken_for_whole(server, file):
    server.misbehave("scans.tar", length=False, drop_at=0.5, times=1)
    download(file, urls=[server.url("scans.tar")], size=SIZE)
    assert is_all_there_is(file)
    assert [request.range for request in server.requests] == [None, f"bytes={SIZE // 2}-"]


def test_a_dropped_connection_is_resumed_and_only_the_rest_is_asked_for(server, file):
    server.misbehave("scans.tar", drop_at=0.4, times=1)
    download(file, urls=[server.url("scans.tar")], md5=[MD5], size=SIZE)
    assert is_all_there_is(file)
    first, second = server.requests
    assert (first.range, first.sent) == (None, SIZE * 4 // 10)
    assert (second.range, second.status, second.sent) == (f"bytes={first.sent}-", 206, SIZE - first.sent)


@pytest.mark.parametrize("known", [{"md5": [MD5]}, {}], ids=["md5 known", "md5 unknown"])
def test_a_later_run_resumes_what_an_earlier_one_left(server, file, known):
    kept = leave_part(server, file, **known)
    download(file, urls=[server.url("scans.tar")], **known)
    assert is_all_there_is(file)
    assert [(request.range, request.sent) for request in server.requests] == [(f"bytes={kept}-", SIZE - kept)]


def test_a_drop_that_brought_new_bytes_is_no_failed_attempt(server, file, monkeypatch):
    fractions = iter([0.2, 0.4, 0.6, 0.8])

    def go_on(_):  # in the pause before the next try
        server.misbehave("scans.tar", drop_at=next(fractions, 2.0))

    monkeypatch.setattr(stage.time, "sleep", go_on)
    server.misbehave("scans.tar", drop_at=0.1)
    download(file, urls=[server.url("scans.tar")], md5=[MD5], attempts=1 + 1)
    assert is_all_there_is(file)
    assert len(server.requests) == 6


def test_attempts_without_a_new_byte_come_to_an_end(server, file):
    server.misbehave("scans.tar", drop_at=0.4)
    with pytest.raises(UserError, match=r"scans\.tar: .*in a row without progress: 3"):
        download(file, urls=[server.url("scans.tar")], md5=[MD5], attempts=3)
    assert len(server.requests) == 1 + 3
    assert part_of(file).stat().st_size == SIZE * 4 // 10


def test_a_server_that_ignores_range_is_read_from_zero(server, file, caplog):
    leave_part(server, file, md5=[MD5])
    server.misbehave("scans.tar", ranges=False)
    download(file, urls=[server.url("scans.tar")], md5=[MD5])
    assert is_all_there_is(file)
    assert [(request.status, request.sent) for request in server.requests] == [(200, SIZE)]
    assert "from zero" in caplog.text


def test_a_server_that_ignores_range_and_always_drops_is_given_up(server, file):
    server.misbehave("scans.tar", ranges=False, drop_at=0.4)
    with pytest.raises(UserError, match="without progress: 2"):
        download(file, urls=[server.url("scans.tar")], md5=[MD5], attempts=2)
    assert len(server.requests) == 1 + 2


@pytest.mark.parametrize(
    ("kind", "preface"), [("text/html; charset=utf-8", b"<!-- portal -->"), ("application/octet-stream", b"")]
)
def test_a_login_page_is_refused_by_name_and_nothing_of_it_is_kept(server, file, kind, preface):
    server.misbehave("scans.tar", login_page=kind, preface=preface)
    with pytest.raises(UserError, match="login page"):
        download(file, urls=[server.url("scans.tar")], md5=[MD5], size=SIZE)
    assert list(file.parent.iterdir()) == []
    assert len(server.requests) == 1


def test_a_login_page_does_not_cost_the_bytes_already_there(server, file):
    kept = leave_part(server, file)
    server.misbehave("scans.tar", login_page="text/html", times=1)
    with pytest.raises(UserError, match="login page"):
        download(file, urls=[server.url("scans.tar")])
    download(file, urls=[server.url("scans.tar")])
    assert is_all_there_is(file)
    assert server.requests[-1].range == f"bytes={kept}-"


def test_a_web_page_is_a_file_like_any_other_where_one_is_asked_for(server, tmp_path):
    server.misbehave("scans.tar", login_page="text/html")
    page = tmp_path / "licence.html"
    download(page, urls=[server.url("scans.tar")])
    assert b"<html>" in page.read_bytes()


def test_a_wrong_md5_leaves_nothing_and_names_file_address_and_both_sums(server, file):
    with pytest.raises(UserError) as raised:
        download(file, urls=[server.url("other.tar")], md5=[MD5])
    for told in (str(file), server.url("other.tar"), MD5, md5_of(OTHER), "by hand"):
        assert told in str(raised.value)
    assert list(file.parent.iterdir()) == []
    assert len(server.requests) == 1


def test_after_a_wrong_md5_the_next_mirror_is_asked_from_zero(server, file):
    download(file, urls=[server.url("other.tar"), server.url("mirror.tar")], md5=[MD5])
    assert is_all_there_is(file)
    assert [(request.path, request.range) for request in server.requests] == [("other.tar", None), ("mirror.tar", None)]


def test_a_wrong_size_is_refused_before_it_is_downloaded(server, file):
    with pytest.raises(UserError, match=f"file there is {SIZE} bytes long, expected {SIZE + 1}"):
        download(file, urls=[server.url("scans.tar")], size=SIZE + 1)
    assert list(file.parent.iterdir()) == []


def test_the_next_mirror_is_used_when_one_is_down_and_one_lacks_the_file(server, file):
    server.misbehave("scans.tar", status=403)
    urls = [closed_url(), server.url("absent.tar"), server.url("scans.tar"), server.url("mirror.tar")]
    download(file, urls=urls, md5=[MD5])
    assert is_all_there_is(file)
    asked = [(request.path, request.status) for request in server.requests]
    assert asked == [("absent.tar", 404), ("scans.tar", 403), ("mirror.tar", 200)]  # 404 and 403 are not repeated


def test_every_mirrors_own_failure_is_told_and_what_to_do(server, file):
    server.misbehave("scans.tar", login_page="text/html")
    urls = [closed_url(), server.url("absent.tar"), server.url("scans.tar")]
    with pytest.raises(UserError) as raised:
        download(file, urls=urls, attempts=1)
    lines = str(raised.value).splitlines()
    assert str(file) in lines[0]
    for line, url, reason in zip(lines[1:4], urls, ["refused", "404", "login page"], strict=True):
        assert url in line and reason in line
    assert "network" in lines[4] and f"put it at {file}" in lines[4]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server, file, status):
    server.misbehave("scans.tar", status=status, times=2)
    download(file, urls=[server.url("scans.tar")], md5=[MD5], attempts=3)
    assert is_all_there_is(file)
    assert [request.status for request in server.requests] == [status, status, 200]


def test_pauses_grow(server, file, monkeypatch):
    pauses = []
    monkeypatch.setattr(stage, "PAUSE", 1.5)
    monkeypatch.setattr(stage.time, "sleep", pauses.append)
    server.misbehave("scans.tar", status=503)
    with pytest.raises(UserError, match="503"):
        download(file, urls=[server.url("scans.tar")], attempts=4)
    assert pauses == [1.5, 3, 6]


def test_any_of_several_md5s_is_right(server, file):
    download(file, urls=[server.url("other.tar")], md5=[MD5, md5_of(OTHER).upper()])
    assert is_all_there_is(file, OTHER)


def test_a_part_of_one_mirror_is_continued_at_another_where_the_md5_will_judge(server, file):
    kept = leave_part(server, file, md5=[MD5])
    download(file, urls=[server.url("mirror.tar")], md5=[MD5])
    assert is_all_there_is(file)
    assert [(request.range, request.if_range) for request in server.requests] == [(f"bytes={kept}-", None)]


def test_a_part_of_one_address_is_not_continued_at_another_without_an_md5(server, file):
    leave_part(server, file)
    download(file, urls=[server.url("other.tar")])
    assert is_all_there_is(file, OTHER)
    assert [request.range for request in server.requests] == [None]


def test_a_mirror_is_not_blamed_for_the_wrong_bytes_of_another(server, file):
    leave_part(server, file, path="other.tar", md5=[MD5])
    download(file, urls=[server.url("mirror.tar")], md5=[MD5])
    assert is_all_there_is(file)
    assert [request.range for request in server.requests] == [f"bytes={SIZE * 4 // 10}-", None]


@pytest.mark.parametrize("known", [{"md5": [MD5, md5_of(OTHER)]}, {}], ids=["md5 known", "md5 unknown"])
def test_a_file_changed_on_the_server_is_not_glued_to_the_old_part(server, file, known):
    leave_part(server, file, **known)
    (server.folder / "scans.tar").write_bytes(OTHER)
    download(file, urls=[server.url("scans.tar")], **known)
    assert is_all_there_is(file, OTHER)
    (request,) = server.requests
    assert request.range and request.if_range and request.status == 200


def test_a_changed_file_is_seen_even_where_the_server_knows_no_if_range(server, file):
    leave_part(server, file)
    (server.folder / "scans.tar").write_bytes(OTHER)
    server.misbehave("scans.tar", if_range=False)
    download(file, urls=[server.url("scans.tar")])
    assert is_all_there_is(file, OTHER)
    assert [request.status for request in server.requests] == [206, 200]


def test_a_part_is_not_continued_at_a_mirror_whose_copy_has_another_length(server, file, caplog):
    longer = CONTENT + b"longer"
    (server.folder / "mirror.tar").write_bytes(longer)
    sums = [MD5, md5_of(longer)]
    leave_part(server, file, md5=sums)
    download(file, urls=[server.url("mirror.tar")], md5=sums)
    assert is_all_there_is(file, longer)
    assert [request.status for request in server.requests] == [206, 200]
    assert "completed from an earlier part" not in caplog.text


def test_without_validator_and_md5_nothing_is_resumed(server, file):
    server.misbehave("scans.tar", drop_at=0.4, validator=False, times=1)
    download(file, urls=[server.url("scans.tar")])
    assert is_all_there_is(file)
    assert [request.range for request in server.requests] == [None, None]


@pytest.mark.parametrize("known", [{"md5": [MD5]}, {}], ids=["md5 known", "md5 unknown"])
def test_a_206_with_another_range_than_asked_for_is_refused(server, file, known):
    leave_part(server, file, **known)
    server.misbehave("scans.tar", shift=1000)
    download(file, urls=[server.url("scans.tar")], **known)
    assert is_all_there_is(file)
    assert [request.status for request in server.requests] == [206, 200]


def test_a_drop_after_starting_over_is_resumed_again(server, file, monkeypatch):
    leave_part(server, file, md5=[MD5])
    server.misbehave("scans.tar", shift=1000, drop_at=0.7)
    monkeypatch.setattr(stage.time, "sleep", lambda _: server.behave())
    download(file, urls=[server.url("scans.tar")], md5=[MD5])
    assert is_all_there_is(file)
    asked = [request.range for request in server.requests]
    assert asked == [f"bytes={SIZE * 4 // 10}-", None, f"bytes={SIZE * 7 // 10}-"]


def test_a_complete_part_is_verified_and_taken_without_a_request(server, file):
    leave_part(server, file, md5=[MD5])
    part_of(file).write_bytes(CONTENT)
    download(file, urls=[server.url("scans.tar")], md5=[MD5])
    assert is_all_there_is(file)
    assert server.requests == []


def test_a_complete_part_with_a_wrong_md5_is_downloaded_anew(server, file):
    leave_part(server, file, md5=[MD5])
    part_of(file).write_bytes(OTHER)
    download(file, urls=[server.url("scans.tar")], md5=[MD5])
    assert is_all_there_is(file)


def test_a_complete_part_of_a_length_never_told_is_taken_on_416(server, file):
    server.misbehave("scans.tar", length=False, drop_at=0.4)
    with pytest.raises(UserError, match="ended after 400000"):
        download(file, urls=[server.url("scans.tar")], size=SIZE, attempts=1)
    part_of(file).write_bytes(CONTENT)
    server.behave()
    download(file, urls=[server.url("scans.tar")], size=SIZE)
    assert is_all_there_is(file)
    assert server.requests[-1].status == 416


def test_a_part_longer_than_the_file_is_thrown_away(server, file):
    leave_part(server, file, md5=[MD5])
    part_of(file).write_bytes(CONTENT + b"too much")
    download(file, urls=[server.url("scans.tar")], md5=[MD5])
    assert is_all_there_is(file)


def test_a_part_whose_notes_are_lost_is_not_continued(server, file):
    leave_part(server, file, md5=[MD5])
    part_of(file).with_name("scans.tar.part.json").write_text('{"url": ')
    download(file, urls=[server.url("scans.tar")], md5=[MD5])
    assert is_all_there_is(file)
    assert [request.range for request in server.requests] == [None]


def test_an_empty_answer_is_not_taken_for_the_file(server, file):
    (server.folder / "scans.tar").write_bytes(b"")
    with pytest.raises(UserError, match="has md5"):
        download(file, urls=[server.url("scans.tar")], md5=[MD5])
    assert list(file.parent.iterdir()) == []


def test_a_right_file_already_there_is_left_alone_without_a_request(server, file, caplog):
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    before = file.stat()
    download(file, urls=[server.url("scans.tar")], md5=[MD5], size=SIZE)
    assert server.requests == []
    assert file.stat() == before
    assert "already there" in caplog.text


def test_a_wrong_file_already_there_stays_until_the_right_one_is_complete(server, file):
    file.parent.mkdir()
    file.write_bytes(OTHER)
    server.misbehave("scans.tar", drop_at=0.4)
    with pytest.raises(UserError):
        download(file, urls=[server.url("scans.tar")], md5=[MD5], attempts=1)
    assert file.read_bytes() == OTHER
    server.behave()
    download(file, urls=[server.url("scans.tar")], md5=[MD5])
    assert is_all_there_is(file)


def test_a_stalled_server_times_out_and_the_next_mirror_goes_on(server, file, monkeypatch):
    monkeypatch.setattr(stage, "TIMEOUT", (5, 1))
    server.misbehave("scans.tar", stall_at=0.4)
    began = time.monotonic()
    download(file, urls=[server.url("scans.tar"), server.url("mirror.tar")], md5=[MD5], attempts=1)
    assert time.monotonic() - began < 10
    assert is_all_there_is(file)
    assert server.requests[-1].path == "mirror.tar"
    assert server.requests[-1].sent == SIZE - SIZE * 4 // 10


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/scans.tar", "file:///etc/hostname", "scans.tar"])
def test_an_address_that_is_not_http_is_refused_before_anything_is_asked(server, file, url):
    with pytest.raises(UserError, match="https://"):
        download(file, urls=[server.url("scans.tar"), url])
    assert server.requests == []
    assert not file.parent.exists()


def test_an_md5_that_is_none_is_refused_before_anything_is_asked(server, file):
    with pytest.raises(UserError, match="32 hexadecimal"):
        download(file, urls=[server.url("scans.tar")], md5=["34901a05"])
    assert server.requests == []


def test_the_command_downloads_from_the_second_mirror_with_the_second_md5(server, file):
    flags = ["--url", server.url("absent.tar"), "--url", server.url("scans.tar")]
    stage.main(["--file", str(file), *flags, "--md5", "0" * 32, "--md5", MD5, "--size", str(SIZE), "--attempts", "1"])
    assert is_all_there_is(file)


def test_after_kill_9_only_the_rest_is_asked_for(server, file):
    server.misbehave("scans.tar", stall_at=0.6, times=1)
    flags = ("--url", server.url("scans.tar"), "--md5", MD5)
    with start(file, *flags) as process:
        # What the dying process had not yet handed to the system is lost: a block at most.
        wait_for_part(file, SIZE * 6 // 10 - stage.BLOCK, process)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not file.exists()
    kept = part_of(file).stat().st_size
    with start(file, *flags) as again:
        told = again.stderr.read()
    assert again.returncode == 0, told
    assert is_all_there_is(file)
    assert (server.requests[1].range, server.requests[1].sent) == (f"bytes={kept}-", SIZE - kept)


def test_ctrl_c_ends_with_130_and_keeps_what_has_come(server, file):
    server.misbehave("scans.tar", stall_at=0.6)
    with start(file, "--url", server.url("scans.tar"), "--md5", MD5) as process:
        wait_for_part(file, SIZE // 2, process)
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode == 130
    assert "interrupted" in told and "Traceback" not in told
    assert not file.exists()
    kept = part_of(file).read_bytes()
    assert len(kept) >= SIZE // 2 and CONTENT.startswith(kept)


def test_a_full_disk_is_told_and_the_rerun_completes_once_there_is_space(server, small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(500_000))
    file = small_disk / "scans.tar"
    flags = ("--url", server.url("scans.tar"), "--md5", MD5, "--size", str(SIZE))
    with start(file, *flags) as process:
        told = process.stderr.read()
    assert process.returncode == 1
    assert f"no space left to write {part_of(file)}" in told and "Traceback" not in told
    assert not file.exists()
    kept = part_of(file).stat().st_size
    assert kept > 0
    ballast.unlink()
    with start(file, *flags) as again:
        told = again.stderr.read()
    assert again.returncode == 0, told
    assert is_all_there_is(file)
    assert server.requests[1].range == f"bytes={kept}-"

"""Downloading: whatever a server answers, the user reads what came of each address and how to go on."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import mriflow.download
from bad_input.cases import case, of_group
from http_server import FileServer
from mriflow.base.errors import UserError
from mriflow.download import download


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    """No seconds pass between two attempts."""
    monkeypatch.setattr(mriflow.download, "PAUSE", 0)


def asked(content: bytes = b"x" * 5000, path: str = "a.tar", known=None, **behaviour) -> Callable:
    """Download a file from a server that answers so."""

    def act(folder):
        (folder / "served").mkdir()
        (folder / "served/a.tar").write_bytes(content)
        with FileServer(folder / "served") as server:
            server.misbehave("a.tar", **behaviour)
            download(folder / "resources/a.tar", urls=[server.url(path)], attempts=2, **(known or {}))
        return "downloaded"

    return act


def nobody_listens(folder: Path) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        download(folder / "a.tar", urls=[f"http://127.0.0.1:{port}/a.tar"], attempts=1)
    except UserError as error:
        raise UserError(str(error).replace(str(port), "PORT")) from error
    return "downloaded"


def address(url: str, **known) -> Callable:
    return lambda folder: str(download(folder / "a.tar", urls=[url], **known))


SERVERS = [
    case(
        asked(path="b.tar"),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/b.tar: the server answered 404 Not Found\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="404",
    ),
    case(
        asked(status=403),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: the server answered 403 Forbidden\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="403",
    ),
    case(
        asked(status=500),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: the server answered 500 Internal Server Error (attempts in a row without progress: 2)\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="500",
    ),
    case(
        asked(drop_at=0.4),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: the connection broke off (IncompleteRead(0 bytes read, 3000 more expected)) (attempts "
        "in a row without progress: 2)\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="connection dropped",
    ),
    case(
        asked(known={"size": 6000}),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: the file there is 5000 bytes long, expected 6000\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="another length than expected",
    ),
    case(
        asked(length=False, known={"size": 6000}),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: what it sent for {tmp}/resources/a.tar is 5000 bytes long, expected 6000. It was "
        "deleted. If the publisher replaced the file and you trust the new one, give its own md5 and size\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="another length, not told before",
    ),
    case(
        asked(known={"md5": ["0" * 32]}),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: what it sent for {tmp}/resources/a.tar has md5 a6bb7bde3251ca2d810d32dadd9e8ae7, "
        "expected 00000000000000000000000000000000. It was deleted. If the publisher replaced the file and you "
        "trust the new one, give its own md5 and size\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="another checksum",
    ),
    case(
        asked(login_page="text/html"),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: a web page came instead of the file: probably the login page of a network (captive "
        "portal) or of the site. Open the address in a browser, log in or accept the terms, then run the same "
        "command again\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="login page in place of the file",
    ),
    case(
        asked(login_page="application/x-tar"),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: a web page came instead of the file: probably the login page of a network (captive "
        "portal) or of the site. Open the address in a browser, log in or accept the terms, then run the same "
        "command again\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="login page that calls itself tar",
    ),
    case(
        asked(b"", known={"size": 6000}),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: the file there is 0 bytes long, expected 6000\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="empty answer",
    ),
    case(
        nobody_listens,
        "could not download {tmp}/a.tar:\n"
        "  http://127.0.0.1:PORT/a.tar: HTTPConnection(host='127.0.0.1', port=PORT): Failed to establish a new "
        "connection: [Errno 111] Connection refused (attempts in a row without progress: 1)\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at {tmp}/a.tar.",
        id="no network",
    ),
    case(
        address("ftp://127.0.0.1/a.tar"),
        "cannot download {tmp}/a.tar from 'ftp://127.0.0.1/a.tar': expected an address that begins http:// or https://",
        id="address that is not http",
    ),
    case(
        address("http://127.0.0.1/a.tar", md5=["1234"]),
        "the md5 given for {tmp}/a.tar is '1234'; expected 32 hexadecimal digits",
        id="checksum that is none",
    ),
]


@pytest.mark.parametrize(("act", "message"), of_group("server", SERVERS))
def test_what_the_user_reads(act, message, shown):
    assert shown(act) == message

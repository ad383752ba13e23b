"""A web server on this machine that serves a folder, and misbehaves where it is told to."""

import re
import threading
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

LOGIN_PAGE = b"\n<!doctype HTML>\n<html><body><form>Please log in to the network</form></body></html>\n"
BLOCK = 1 << 16


@dataclass
class Request:
    """One request that came, and what it was answered."""

    path: str
    range: str | None
    if_range: str | None
    status: int = 0
    sent: int = 0  # bytes of the file


@dataclass
class Behaviour:
    """How a path is answered; as a well-behaved server would unless something is set.

    Attributes
    ----------
    status : int
        Answer with this status alone (404, 503 ...).
    login_page : str
        Answer 200 with a web page of this Content-Type.
    drop_at, stall_at : float
        Close the connection, or fall silent with it open, after this fraction of the whole file.
    preface : bytes
        What stands before the login page.
    ranges, if_range : bool
        Whether Range is obeyed, and the condition on it.
    shift : int
        Answer a Range request with bytes from so much further on.
    length, validator : bool
        Whether Content-Length, and ETag and Last-Modified, are told.
    times : int
        How many requests are answered so; those after them are answered well. Negative: all.
    """

    status: int = 0
    login_page: str = ""
    drop_at: float = 2.0
    stall_at: float = 2.0
    preface: bytes = b""
    ranges: bool = True
    if_range: bool = True
    shift: int = 0
    length: bool = True
    validator: bool = True
    times: int = -1


class FileServer:
    """Serve `folder` on the loopback interface while the ``with`` block lasts.

    >>> with FileServer(folder) as server:
    ...     server.misbehave("IXI.xls", drop_at=0.4, times=1)
    ...     requests.get(server.url("IXI.xls"))
    ...     server.requests[0].sent
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder).resolve()
        self.behaviours: dict[str, Behaviour] = {}
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.files = self

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/{path}"

    def misbehave(self, path: str, **how) -> None:
        """Answer `path` as told by the attributes of `Behaviour`."""
        self.behaviours[path] = Behaviour(**how)

    def behave(self) -> None:
        """Answer everything well again."""
        self.behaviours.clear()

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        files: FileServer = self.server.files
        path = unquote(urlsplit(self.path).path).lstrip("/")
        self.request_told = Request(path, self.headers["Range"], self.headers["If-Range"])
        files.requests.append(self.request_told)
        how = files.behaviours.get(path, Behaviour())
        if how.times == 0:
            how = Behaviour()
        how.times -= 1
        self.close_connection = True
        source = files.folder / path
        if how.status or not (source.is_file() and source.resolve().is_relative_to(files.folder)):
            self._head(how.status or 404, {"Content-Length": 0})
        elif how.login_page:
            page = how.preface + LOGIN_PAGE
            self._head(200, {"Content-Type": how.login_page, "Content-Length": len(page)})
            self.wfile.write(page)
        else:
            self._file(source, how)

    def _file(self, source: Path, how: Behaviour) -> None:
        facts = source.stat()
        whole = facts.st_size
        etag = f'"{facts.st_mtime_ns:x}-{whole:x}"'
        headers = {"Content-Type": "application/octet-stream"}
        if how.validator:
            headers |= {"ETag": etag, "Last-Modified": formatdate(facts.st_mtime, usegmt=True)}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        changed = how.if_range and self.headers["If-Range"] not in (None, etag)
        if changed or not how.ranges:
            asked = None
        status, first, last = 200, 0, whole - 1
        if asked:
            first = int(asked[1]) + how.shift
            last = min(int(asked[2] or last), last)
            if first >= whole:
                self._head(416, {"Content-Range": f"bytes */{whole}", "Content-Length": 0})
                return
            status = 206
            headers["Content-Range"] = f"bytes {first}-{last}/{whole}"
        if how.length:
            headers["Content-Length"] = last + 1 - first
        self._head(status, headers)
        end = min(last + 1, int(whole * min(how.drop_at, how.stall_at)))
        try:
            with source.open("rb") as stream:
                stream.seek(first)
                while (left := end - stream.tell()) > 0:
                    block = stream.read(min(left, BLOCK))
                    self.request_told.sent += len(block)  # before it is sent, so that who has it all sees it counted
                    self.wfile.write(block)
        except ConnectionError:
            return  # the client went away
        if how.stall_at <= 1:
            self.server.files.closing.wait(60)

    def _head(self, status: int, headers: dict) -> None:
        self.request_told.status = status
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *_) -> None:
        """Keep quiet: the requests are in `FileServer.requests`."""

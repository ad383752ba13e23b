"""Download one file: whole and right under its own name, or not there at all.

What has come lies in FILE.part until the last byte is there and size and md5 agree; a run that was
interrupted goes on from it. Each --url is a mirror of the same file, tried in turn. Nothing is computed
but the md5, so this may run on a cluster's login node.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from mriflow.base.cli import progress, run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import is_web_page, write_json

log = logging.getLogger(__name__)

PAUSE = 2.0  # seconds before the second attempt; doubled before each further one
TIMEOUT = (10.0, 60.0)  # seconds to connect; seconds without a single byte
BLOCK = 1 << 18  # bytes


class _Refused(Exception):
    """A mirror will not give the file, however often it is asked."""


class _StartOver(Exception):
    """What lies in the .part cannot be continued from this mirror."""


class _Wanted:
    """The file to get, what is known of it, the .part in which its bytes gather, and a note on whose bytes they are."""

    def __init__(self, file: Path, md5: list[str], size: int | None):
        self.file, self.md5, self.size = file, md5, size
        self.part = file.with_name(f"{file.name}.part")
        self.noted = file.with_name(f"{file.name}.part.json")

    def received(self) -> int:
        """Return how many bytes lie in the .part."""
        return self.part.stat().st_size if self.part.exists() else 0

    def note(self) -> dict[str, Any]:
        """Return the note on the .part, an empty one if there is no .part or no readable note."""
        try:
            return json.loads(self.noted.read_text(encoding="utf-8")) if self.received() else {}
        except (FileNotFoundError, ValueError):
            return {}

    def begin(self, url: str, version: str | None, total: int | None) -> None:
        """Throw the old .part away and note what the new one is of."""
        self.part.unlink(missing_ok=True)  # first: a crash here must not leave old bytes under a new note
        write_json({"url": url, "version": version, "total": total, "md5": self.md5, "begun": time.time()}, self.noted)

    def discard(self) -> None:
        """Throw the .part and its note away."""
        self.part.unlink(missing_ok=True)
        self.noted.unlink(missing_ok=True)

    def problem(self, path: Path) -> str:
        """Return what is wrong with the file at `path`, "" if nothing is."""
        size = path.stat().st_size
        if self.size not in (None, size):
            return f"is {size} bytes long, expected {self.size}"
        if not self.md5:
            return ""
        log.info("checking the md5 of %s", path)
        with path.open("rb") as stream:
            sum_of_file = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        return "" if sum_of_file in self.md5 else f"has md5 {sum_of_file}, expected {' or '.join(self.md5)}"


def download(file: Path, *, urls: list[str], md5: list[str] | None = None, size: int | None = None, attempts: int = 3) -> Path:
    """Get `file` from the first of `urls` that gives it right.

    A file that is there already is left alone if size and md5 agree; if not, it stays until the right one is complete.

    Parameters
    ----------
    file : Path
        Where it goes; until then its bytes are in ``<file>.part``, and ``<file>.part.json`` says whose they are.
    urls : list of str
        http(s) addresses of the same file, the best first.
    md5 : list of str, optional
        Its md5; several if the mirrors hold copies that differ in bytes: any of them is right.
    size : int, optional
        Its length in bytes.
    attempts : int
        How often in a row a mirror may fail without sending a new byte.

    Raises
    ------
    UserError
        An address is not http(s), an md5 is not one, or no mirror gave the file; lists each mirror's own failure.
    """
    for url in urls:
        if urlsplit(url).scheme not in ("http", "https"):
            raise UserError(f"cannot download {file} from {url!r}: expected an address that begins http:// or https://")
    sums = [value.strip().lower() for value in md5 or []]
    for value in sums:
        if not re.fullmatch("[0-9a-f]{32}", value):
            raise UserError(f"the md5 given for {file} is {value!r}; expected 32 hexadecimal digits")
    wanted = _Wanted(file, sums, size)
    if file.exists():
        if not (problem := wanted.problem(file)):
            log.info("%s is already there", file)
            return file
        log.warning("%s is there but %s; it stays until the right one is complete", file, problem)
    file.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in urls:
        try:
            _get(wanted, url, attempts)
        except _Refused as error:
            log.warning("%s: %s", url, error)
            failures.append(f"  {url}: {error}\n")
            continue
        with wanted.part.open("rb") as stream:
            os.fsync(stream.fileno())
        wanted.part.replace(file)
        wanted.discard()
        log.info("%s is complete", file)
        return file
    raise UserError(
        f"could not download {file}:\n{''.join(failures)}"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same command "
        f"again: it goes on from what has come. Or download it by hand and put it at {file}."
    )


def _get(wanted: _Wanted, url: str, attempts: int) -> None:
    """Fill the .part from `url` until it is complete and right; raise _Refused if that cannot be."""
    inherited, most = wanted.note(), wanted.received()
    failed = 0
    while True:
        try:
            _receive(wanted, url)
            if not (problem := wanted.problem(wanted.part)):
                return
            # If it went on from the bytes of an earlier run or another mirror, those may be the wrong ones.
            if inherited and wanted.note() == inherited:
                raise _StartOver(f"the file completed from an earlier part {problem}")
            wanted.discard()
            raise _Refused(
                f"what it sent for {wanted.file} {problem}. It was deleted. If the publisher replaced the file and "
                "you trust the new one, give its own md5 and size"
            )
        except _StartOver as reason:
            log.warning("%s: %s; starting again from zero", url, reason)
            wanted.discard()
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            received = wanted.received()
            failed = 0 if received > most else failed + 1
            most = max(most, received)
            if failed >= attempts:
                raise _Refused(f"{_in_few_words(error)} (attempts in a row without progress: {failed})") from error
            log.info("%s: %s; trying again", url, _in_few_words(error))
            time.sleep(PAUSE * 2 ** max(failed - 1, 0))


def _receive(wanted: _Wanted, url: str) -> None:
    """Make one request and append what it brings to the .part; return once that is as long as it should be."""
    # The .part may be continued where the server can say that it is still the same version of the file (If-Range), or
    # where an md5 will judge the whole: else the halves of two files could be glued together.
    note = wanted.note()
    version = note.get("version") if note.get("url") == url else None
    judged = wanted.md5 and note.get("md5") == wanted.md5 and note.get("total")
    have = wanted.received() if version or judged else 0
    if have and have == note["total"]:
        return  # the earlier run ended between the last byte and the check
    headers = {"Accept-Encoding": "identity"}  # the bytes as published: size and md5 are theirs
    headers |= {"Range": f"bytes={have}-"} if have else {}
    headers |= {"If-Range": version} if version else {}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        status = answer.status_code
        if status == 429 or status >= 500:
            raise requests.HTTPError(f"the server answered {status} {answer.reason}")
        if status not in ((200, 206, 416) if have else (200,)):
            raise _Refused(f"the server answered {status} {answer.reason}")
        first, total = _range(answer)
        if status == 416 and total == have:
            return
        head = answer.raw.read(512, decode_content=False) if status == 200 else b""
        _refuse_web_page(wanted.file, answer, head)
        if wanted.size is not None and total not in (None, wanted.size):
            raise _Refused(f"the file there is {total} bytes long, expected {wanted.size}")
        if status == 200:
            if wanted.received():
                log.warning("%s: the part kept is of another file or the server cannot resume: from zero", url)
            have = 0
            wanted.begin(url, _version(answer), total)
        elif first != have or note["total"] not in (None, total):
            got = answer.headers.get("Content-Range")
            raise _StartOver(f"asked for bytes from {have} of {note['total']}, got {got!r}")
        elif version and _version(answer) not in (None, version):
            raise _StartOver("the file has changed on the server")
        _write(wanted.part, answer, head, have, total or wanted.size)
    received, expected = wanted.received(), wanted.size if total is None else total
    if expected is not None and received < expected:
        raise requests.ConnectionError(f"the connection ended after {received} of {expected} bytes")
    if expected is None and not wanted.md5:
        log.warning("%s: no length and no md5 known, so nothing can tell whether this is all of it", url)


def _write(part: Path, answer: requests.Response, head: bytes, have: int, total: int | None) -> None:
    """Append `head` and the rest of the answer's body to `part`, with a progress bar."""
    try:
        with progress(initial=have, total=total, desc=part.stem, unit="B", unit_scale=True) as bar, part.open("ab") as stream:
            bar.update(stream.write(head))
            # read1 returns what has come: read would lose up to a block when the connection drops.
            while block := answer.raw.read1(BLOCK, decode_content=False):
                bar.update(stream.write(block))
    except OSError as error:  # a full disk does not say for which file
        error.filename = error.filename or str(part)
        raise


def _range(answer: requests.Response) -> tuple[int | None, int | None]:
    """Return the first byte's place (of a 206) and the length of the whole file, None if the server does not say."""
    if answer.status_code == 200:
        length = answer.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", answer.headers.get("Content-Range", "").strip())
    return (int(match[1]) if match[1] else None, int(match[2])) if match else (None, None)


def _version(answer: requests.Response) -> str | None:
    """Return what names this version of the file to If-Range (RFC 9110, 13.1.5): a strong ETag or the date."""
    etag = answer.headers.get("ETag", "")
    return etag if etag.startswith('"') else answer.headers.get("Last-Modified")


def _refuse_web_page(file: Path, answer: requests.Response, head: bytes) -> None:
    """Raise _Refused if a web page came where a file was asked for, as networks that want a login do."""
    kind = answer.headers.get("Content-Type", "").lower()
    page = kind.startswith("text/html") or is_web_page(head)
    if page and file.suffix.lower() not in (".html", ".htm"):
        raise _Refused(
            "a web page came instead of the file: probably the login page of a network (captive portal) or of the "
            "site. Open the address in a browser, log in or accept the terms, then run the same command again"
        )


def _in_few_words(error: Exception) -> str:
    """Return a network failure in few words."""
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return f"no answer within {TIMEOUT[0]:g} s, or nothing more for {TIMEOUT[1]:g} s"
    if isinstance(error, urllib3.exceptions.ProtocolError):
        return f"the connection broke off ({error.args[-1]})"
    return str(getattr(error.args[0], "reason", error)) if error.args else str(error)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and download one file."""
    parser = stage_parser(__doc__)
    add = parser.add_argument
    add("--file", type=Path, required=True, help="where the file goes")
    add("--url", dest="urls", metavar="URL", action="append", required=True, help="address; repeat for mirrors")
    add("--md5", action="append", help="md5 of the file; repeat if mirrors hold copies that differ")
    add("--size", type=int, help="length of the file in bytes")
    add("--attempts", type=int, default=3, help="failures in a row, without a new byte, before the next mirror (3)")
    download(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)

"""Fetch the scans that a UK Biobank bulk file lists, with UK Biobank's own program, ukbfetch.

Zips that are already in the folder are taken as they are; where all are there, neither key nor program is needed. A zip comes
under its own name only when it is whole. What a round of calls did not bring is asked for again by a new bulk file, and a run
that was killed goes on from what has come. The table says of each scan where its zip is and whether it can be used.

A bulk file has lines like "1002532 20252_2_0" (made by: ukbconv ukb.enc_ukb bulk -s20252). The key file, usually .ukbkey, came
by e-mail from UK Biobank: first line the application, second the password; what stands in it is shown to nobody.
"""

import csv
import fcntl
import logging
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import pandas as pd

from mriflow.base.cli import progress, run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import write_csv, write_text
from mriflow.images.ukb_zip import BRAIN, MEMBERS, fingerprint_in, t1_problem

log = logging.getLogger(__name__)

MOST_LINES = 1000  # of a bulk file in one call: UCL's guide to ukbfetch on Myriad
MOST_CALLS = 10  # at once for one application: datalad-ukbiobank, "Concepts & Terms"
ROUNDS = 3  # in which what is missing is asked for
PAUSE = 30.0  # seconds before each further round
POLL = 0.5  # seconds between two looks at the running calls
BULK_LINE = re.compile(r"([0-9]+)\s+([0-9]+_[0-9]+_[0-9]+)")


class Checked:
    """The zips that were found whole, and of the scan in each what is wrong with it and its fingerprint, kept in `file`.

    So none is opened twice: a zip is known by its name, size and time. Its line is appended once it is checked; a line that a
    kill cut fits no zip.
    """

    def __init__(self, file: Path, member: str = BRAIN):
        self.file, self.member, self.known = file, member, dict[str, tuple[str, str, str]]()
        if file.exists():
            with open(file, encoding="utf-8", errors="replace", newline="") as stream:
                self.known = {row[0]: (row[1], row[2], row[3]) for row in csv.reader(stream) if len(row) == 4}

    def whole(self, folder: Path, name: str, info: os.stat_result) -> bool:
        """Return whether a zip in `folder` is whole; its directory is read only if the zip is not on the list."""
        stamp = f"{info.st_size}:{info.st_mtime_ns}:{self.member}"
        if self.known.get(name, ("",))[0] == stamp:
            return True
        path = folder / name
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist()[0], archive.infolist()[-1]:
                    archive.open(member).close()  # not where the directory says if a piece of the zip is missing
                problem = t1_problem(archive.namelist(), self.member)
                content = "" if problem else fingerprint_in(archive, self.member)
        except Exception as error:  # zipfile raises half a dozen kinds of errors for a cut or damaged zip
            log.warning("%s: cut or damaged (%s)", path, error)
            return False
        self.known[name] = (stamp, problem, content)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, "a", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerow([name, *self.known[name]])
        return True


def fetch(
    table: Path,
    *,
    bulk: Path,
    zips: Path,
    member: str = BRAIN,
    key: Path | None = None,
    program: str = "ukbfetch",
    calls: int = 4,
) -> pd.DataFrame:
    """Fetch the zips of all scans in `bulk` that are not whole in the folder `zips`, then write `table`.

    Parameters
    ----------
    table
        The table to write, one row per scan: `eid`, `field`, `instance`, `array`, `path` (of `member` in its zip, from the
        table's own folder; empty if it cannot be used), `problem` and `fingerprint`. The zips found whole are listed beside it,
        in ``<its name>.checked.csv``.
    member
        Which image of a zip is the scan, one of `mriflow.images.ukb_zip.MEMBERS`.
    key, program
        Key file and ukbfetch; needed only if a zip is missing or cut.
    calls
        Calls at once, at most 10 together with those of everyone else who fetches for the same application.

    Raises
    ------
    UserError
        For a bulk or key file that is not as it should be, a program that is missing, and scans that did not come.
    """
    if not 1 <= calls <= MOST_CALLS:
        raise UserError(
            f"--calls {calls}: UK Biobank allows at most {MOST_CALLS} calls at once for one application; give 1 to 10."
        )
    lines = read_bulk(bulk)
    checked = Checked(table.with_name(f"{table.stem}.checked.csv"), member)
    missing = not_there(lines, zips, checked)
    log.info("%d of %d scans are already in %s", len(lines) - len(missing), len(lines), zips)
    if missing:
        left = (
            f"{len(missing)} of the {len(lines)} zips for {bulk} are missing or cut in {zips}, first {zip_name(missing[0])}. "
        )
        secrets = read_key(key, left)
        command = [find_program(program, left, zips), f"-a{os.path.abspath(key or '')}", "-v"]  # noqa: PTH100
        missing, last_line = fetch_missing(missing, command, zips, checked, calls)
        for secret in secrets:
            last_line = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", last_line)
    if missing:
        raise UserError(
            f"{bulk}: {len(missing)} of its {len(lines)} scans did not come in {ROUNDS} rounds of ukbfetch; the first is "
            f"{missing[0]!r}. ukbfetch said last: {last_line.strip()[:300] or 'nothing'}. All are listed in "
            f"{zips}/.ukbfetch/missing.bulk, beside ukbfetch's own logs. What came is kept. Run the same command again later, "
            "or take the lines of people who have withdrawn from UK Biobank out of the bulk file."
        )
    rows = pd.DataFrame([re.split("[ _]", line) for line in lines], columns=["eid", "field", "instance", "array"])
    folder = os.path.relpath(zips, table.parent)
    known = [checked.known[zip_name(line)] for line in lines]
    rows["path"] = ["" if row[1] else f"{folder}/{zip_name(line)}/{member}" for line, row in zip(lines, known, strict=True)]
    rows["problem"] = [row[1] for row in known]
    rows["fingerprint"] = [row[2] for row in known]
    write_csv(rows, table)
    log.info("%d scans, %d of which cannot be used", len(rows), (rows["problem"] != "").sum())
    return rows


def read_bulk(bulk: Path) -> list[str]:
    """Return the lines of a bulk file, each once; UserError if there are none or one is not as it should be."""
    make = "make it with: ukbconv ukb.enc_ukb bulk -s20252"
    if not bulk.is_file():
        raise UserError(f"{bulk}: no such bulk file; {make}")
    lines = []
    for number, line in enumerate(bulk.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if match := BULK_LINE.fullmatch(line.strip()):
            lines.append(f"{match[1]} {match[2]}")
        elif line.strip():
            problem = f"found {line.strip()[:40]!r}, expected a participant and a data file like '1002532 20252_2_0'"
            raise UserError(f"{bulk}, line {number}: {problem}. Correct it, or {make}")
    if not lines:
        raise UserError(f"{bulk}: the bulk file has no lines; {make}")
    if twice := len(lines) - len(set(lines)):
        log.warning("%s: %d lines repeat another; each scan is fetched and listed once", bulk, twice)
    return list(dict.fromkeys(lines))


def zip_name(line: str) -> str:
    """Return the name that ukbfetch gives to the zip of a line of the bulk file."""
    return f"{line.replace(' ', '_')}.zip"


def read_key(key: Path | None, left: str) -> list[str]:
    """Return the two lines of the key file, only to keep them out of what is shown; UserError if it is not one or not safe."""
    if key is None:
        raise UserError(f"{left}Give --key, the key file (.ukbkey) that UK Biobank sent, or put the zips there yourself.")
    if not os.access(key, os.R_OK) or not key.is_file():
        what = "a folder, not a key file" if key.is_dir() else "no such key file, or not yours"
        raise UserError(f"{key}: {what}. {left}UK Biobank sent it by e-mail; or put the zips there yourself.")
    if (mode := key.stat().st_mode & 0o777) & 0o077:
        safe = f"chmod 600 {shlex.quote(str(key))}"
        raise UserError(f"{key}: the key file is open to others (mode {mode:o}), expected its owner alone. Run: {safe}")
    key_lines = [line.strip() for line in key.read_text(encoding="utf-8-sig", errors="replace").splitlines() if line.strip()]
    if len(key_lines) != 2 or not re.fullmatch("[0-9]+", key_lines[0]) or re.search(r"\s", key_lines[1]):
        wanted = "the number of the application, then the password"
        raise UserError(f"{key}: found {len(key_lines)} lines, expected two: {wanted}. Save it again from UK Biobank's e-mail.")
    return key_lines


def find_program(program: str, left: str, zips: Path) -> str:
    """Return the full path of ukbfetch, or raise a UserError that says where to get it."""
    if path := shutil.which(program):
        return os.path.abspath(path)  # noqa: PTH100 - a link to it is called as such
    raise UserError(
        f"{program}: no such program. {left}Get ukbfetch from https://biobank.ndph.ox.ac.uk/showcase/download.cgi, make it "
        f"executable (chmod +x) and give its path as --program. Zips that you have already do as well: put them into {zips}."
    )


def not_there(lines: list[str], zips: Path, checked: Checked) -> list[str]:
    """Return the lines whose zip is not whole in `zips`: one look at the folder, and only zips not yet checked are opened."""
    wanted, in_folder = {zip_name(line) for line in lines}, {}
    if zips.is_dir():
        with os.scandir(zips) as entries:
            in_folder = {entry.name: entry.stat() for entry in entries if entry.name in wanted and entry.is_file()}
    whole = {name for name in progress(in_folder, desc="check", unit="zip") if checked.whole(zips, name, in_folder[name])}
    return [line for line in lines if zip_name(line) not in whole]


def fetch_missing(missing: list[str], command: list[str], zips: Path, checked: Checked, calls: int) -> tuple[list[str], str]:
    """Ask for the `missing` lines in rounds; return those that never came and the last line that ukbfetch wrote."""
    scratch, last_line = zips / ".ukbfetch", ""
    with alone_in(scratch) as lock:
        missing = take(not_there(missing, zips, checked), scratch, checked)  # what a run that was killed had fetched
        write_text("".join(f"{line}\n" for line in missing), scratch / "missing.bulk")
        for turn in range(1, ROUNDS + 1):
            if missing and turn > 1:
                log.warning("%d scans did not come; asking for them again in %g s", len(missing), PAUSE)
                time.sleep(PAUSE)
            if missing:
                last_line = run_round(missing, command, scratch, f"round-{turn}", calls, lock)
                missing = take(missing, scratch, checked)
                write_text("".join(f"{line}\n" for line in missing), scratch / "missing.bulk")
    return missing, last_line


@contextmanager
def alone_in(scratch: Path) -> Iterator[int]:
    """Hold the folder against other runs, or wait for them. The calls get the lock, too.

    So calls that a killed run left behind are waited for: together with new ones they could be more than are allowed at once.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    with open(scratch / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning(
                "another run, or calls that a killed one left, still fetch into %s; waiting for their end", scratch.parent
            )
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def run_round(lines: list[str], command: list[str], scratch: Path, stem: str, calls: int, lock: int) -> str:
    """Ask once for all `lines`, those of ``missing.bulk``; return the last line of the call that ended last.

    Whether a scan came is seen by its zip alone: how a call ends says nothing of the single scan.
    """
    size = min(MOST_LINES, -(-len(lines) // calls))  # a few lines are shared among the calls, too
    starts = list(range(1, len(lines) + 1, size))
    wanted, running, last_line = {zip_name(line) for line in lines}, dict[subprocess.Popen[bytes], IO[bytes]](), ""
    with ExitStack() as stack, progress(total=len(lines), desc=f"ukbfetch {stem}", unit="scan") as bar:
        while starts or running:
            while starts and len(running) < calls:
                window = [f"-s{starts[0]}", f"-m{min(size, len(lines) - starts[0] + 1)}", f"-o{stem}_line-{starts.pop(0)}"]
                words = [command[0], "-bmissing.bulk", *command[1:], *window]
                log.info("%s", shlex.join(words))
                output = stack.enter_context(tempfile.TemporaryFile())  # a file without a name: the key may stand in it
                pipes = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
                try:
                    call = subprocess.Popen(words, cwd=scratch, pass_fds=[lock], **pipes)  # type: ignore[call-overload]
                except OSError as error:
                    raise UserError(f"{words[0]}: cannot be run ({error.strerror}). Get ukbfetch for this system.") from error
                stack.callback(call.wait)
                stack.callback(call.kill)  # first: if we are interrupted, nothing goes on behind our back
                running[call] = output
            time.sleep(POLL)
            bar.update(sum(entry.name in wanted for entry in scratch.iterdir()) - bar.n)
            for call in [call for call in running if call.poll() is not None]:
                its_output = running.pop(call)
                its_output.seek(0)
                written = [line for line in its_output.read().decode(errors="replace").splitlines() if line.strip()]
                last_line = (written or [last_line])[-1]
    return last_line


def take(lines: list[str], scratch: Path, checked: Checked) -> list[str]:
    """Rename the whole zips in `scratch` to their final names, delete the cut ones; return the lines that did not come."""
    in_scratch, missing = {path.name for path in scratch.iterdir()}, []
    for line in lines:
        path = scratch / zip_name(line)
        if path.name in in_scratch and checked.whole(scratch, path.name, path.stat()):
            os.replace(path, scratch.parent / path.name)
        else:
            path.unlink(missing_ok=True)
            missing.append(line)
    return missing


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and fetch."""
    parser = stage_parser(__doc__)
    add = parser.add_argument
    add("--table", type=Path, required=True, help="the table to write, one row per scan")
    add("--bulk", type=Path, required=True, help="the bulk file, a line for each scan")
    add("--zips", type=Path, required=True, help="folder of the zips, of those that are there and those to come")
    add("--member", choices=MEMBERS, default=BRAIN, help=f"the image of a zip that is the scan ({BRAIN})")
    add("--key", type=Path, help="key file, open to its owner alone (chmod 600); not needed if all zips are there")
    add("--program", default="ukbfetch", help="UK Biobank's program, its name in PATH or its path (ukbfetch)")
    add("--calls", type=int, default=4, help=f"calls at once, at most {MOST_CALLS} with all others of the application (4)")
    fetch(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)

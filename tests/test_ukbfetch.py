"""Fetching UK Biobank's scans by a stand-in for ukbfetch that refuses what the service refuses; reading what the zips hold."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.datasets import load_mni152_template
from scipy.ndimage import affine_transform

import mriflow.ukbfetch as stage
from mriflow.base.errors import UserError
from mriflow.images.ukb_zip import MATRIX, MEMBERS, fingerprint_in, mni_affine, read_flirt, read_t1_zip
from mriflow.ukbfetch import fetch

STANDIN = Path(__file__).with_name("ukbfetch_standin.py")
APPLICATION, PASSWORD = "31415", "a1b2c3d4e5f6" * 6
BRAIN, HEAD = "T1/T1_brain.nii.gz", "T1/T1.nii.gz"
GOOD = {BRAIN: b"scan" * 500, HEAD: b"head" * 700, MATRIX: b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"}


def zipped(members: dict[str, bytes] = GOOD) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # of a fixed date: the same bytes every time
    return stream.getvalue()


class Biobank:
    """An approved project: bulk file, key, program, a folder for the zips; and the service that the stand-in asks."""

    def __init__(self, folder: Path):
        self.folder, self.service = folder, folder / "service"
        self.bulk, self.key, self.zips = folder / "ukb.bulk", folder / ".ukbkey", folder / "zips"
        self.table, self.program = folder / "resources" / "fetched.csv", folder / "bin" / "ukbfetch"
        self.key.write_text(f"{APPLICATION}\n{PASSWORD}\n")
        self.key.chmod(0o600)
        self.program.parent.mkdir()
        self.program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {STANDIN} "$@"\n')
        self.program.chmod(0o755)
        self.serve()

    def serve(self, **behaviour) -> None:
        self.service.mkdir(exist_ok=True)
        (self.service / "scan.zip").write_bytes(zipped())
        settings = {"key": [APPLICATION, PASSWORD]} | behaviour
        (self.service / "service.json").write_text(json.dumps(settings))

    def wants(self, count: int) -> list[str]:
        lines = [f"{1000000 + number} 20252_{2 + number % 2}_0" for number in range(count)]
        self.bulk.write_text("\n".join(lines) + "\n")
        return lines

    def has(self, line: str, content: bytes | None = None) -> Path:
        self.zips.mkdir(exist_ok=True)
        path = self.zips / stage.zip_name(line)
        path.write_bytes(zipped() if content is None else content)
        return path

    def asked(self) -> list[dict]:
        told = self.service / "asked.jsonl"
        return [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []

    def fetch(self, **options) -> pd.DataFrame:
        options = {"bulk": self.bulk, "zips": self.zips, "key": self.key, "program": str(self.program)} | options
        return fetch(self.table, **options)

    def start(self) -> subprocess.Popen:
        """Start the command as a job would, in a group of its own."""
        flags = ["--table", self.table, "--bulk", self.bulk, "--zips", self.zips, "--key", self.key, "--program", self.program]
        command = [sys.executable, "-m", "mriflow.ukbfetch", *map(str, flags), "--calls", "1"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


@pytest.fixture
def biobank(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(stage, "PAUSE", 0)
    monkeypatch.setattr(stage, "POLL", 0.02)
    biobank = Biobank(tmp_path)
    monkeypatch.setenv("UKB_SERVICE", str(biobank.service))
    caplog.set_level(logging.INFO)
    return biobank


def standin(biobank: Biobank, *flags: str) -> subprocess.CompletedProcess:
    return subprocess.run([str(biobank.program), *flags], cwd=biobank.folder, capture_output=True, text=True)


def test_what_is_missing_is_fetched_and_listed_with_one_row_per_scan(biobank):
    lines = biobank.wants(5)
    there = biobank.has(lines[0])
    before = there.stat()
    table = biobank.fetch()
    pd.testing.assert_frame_equal(table, pd.read_csv(biobank.table, dtype=str, keep_default_na=False))
    assert list(table) == ["eid", "field", "instance", "array", "path", "problem", "fingerprint"]
    assert table.iloc[3].tolist() == [
        *("1000003", "20252", "3", "0", "../zips/1000003_20252_3_0.zip/T1/T1_brain.nii.gz", ""),
        f"7d0-{zlib.crc32(GOOD[BRAIN]):08x}",
    ]
    assert [(biobank.table.parent / path).parents[1].read_bytes() for path in table["path"]] == [zipped()] * 5
    assert there.stat() == before
    assert sorted(line for call in biobank.asked() for line in call["lines"]) == lines[1:]


def test_every_call_has_the_documented_flags_and_a_log_of_its_own(biobank):
    biobank.wants(7)
    biobank.fetch(calls=3)
    asked = sorted(call["argv"] for call in biobank.asked())
    windows = [("-s1", "-m3"), ("-s4", "-m3"), ("-s7", "-m1")]
    assert asked == [
        ["-bmissing.bulk", f"-a{biobank.key}", "-v", first, count, f"-oround-1_line-{first[2:]}"] for first, count in windows
    ]
    logs = (biobank.zips / ".ukbfetch").glob("*.log")
    assert sorted(log.read_text().count("fetched") for log in logs) == [1, 3, 3]


def test_the_standin_refuses_what_the_service_refuses(biobank):
    lines = biobank.wants(1001)
    assert "more than 1000" in standin(biobank, f"-b{biobank.bulk}").stderr
    assert standin(biobank, f"-b{biobank.bulk}", "-m2").returncode == 0
    assert "usage" in standin(biobank, "-b", str(biobank.bulk)).stderr
    for other in range(10):
        (biobank.service / "slots" / f"{os.getpid()}-{other}").touch()
    assert "too many" in standin(biobank, f"-b{biobank.bulk}", "-m1").stderr
    biobank.key.write_text(f"{APPLICATION}\nanother\n")
    assert "authentication failed" in standin(biobank, f"-b{biobank.bulk}", "-m1").stderr
    assert len(list(biobank.folder.glob("*.zip"))) == len(lines[:2])


def test_no_call_asks_for_more_than_1000_lines(biobank):
    biobank.wants(1200)
    assert len(biobank.fetch(calls=1)) == 1200
    assert [len(call["lines"]) for call in biobank.asked()] == [1000, 200]


def test_ten_calls_run_at_once_and_never_an_eleventh(biobank, monkeypatch):
    monkeypatch.setattr(stage, "MOST_LINES", 1)
    biobank.serve(seconds=0.6)
    biobank.wants(13)
    biobank.fetch(calls=10)
    at_once = [call["at_once"] for call in biobank.asked()]
    assert len(at_once) == 13 and 3 < max(at_once) <= 10


@pytest.mark.parametrize("calls", [0, 11])
def test_more_calls_than_allowed_are_refused_before_anything_is_asked(biobank, calls):
    biobank.wants(1)
    with pytest.raises(UserError, match=f"--calls {calls}.*at most 10"):
        biobank.fetch(calls=calls)
    assert biobank.asked() == []


def test_with_all_zips_there_neither_key_nor_program_is_needed(biobank):
    for line in biobank.wants(3):
        biobank.has(line)
    table = biobank.fetch(key=None, program="no-such-program")
    assert len(table) == 3 and biobank.asked() == []
    assert not (biobank.zips / ".ukbfetch").exists()


def test_zips_in_a_folder_that_cannot_be_written_do_as_well(biobank):
    for line in biobank.wants(2):
        biobank.has(line)
    biobank.zips.chmod(0o555)
    assert len(biobank.fetch(key=None)) == 2
    assert [path.suffix for path in biobank.zips.iterdir()] == [".zip"] * 2


@pytest.mark.parametrize("keep", [slice(-30), slice(30, None), slice(0)], ids=["end", "start", "all"])
def test_a_cut_zip_is_told_and_fetched_again(biobank, caplog, keep):
    lines = biobank.wants(2)
    biobank.has(lines[0])
    cut = biobank.has(lines[1], zipped()[keep])
    biobank.fetch()
    assert f"{cut}: cut or damaged" in caplog.text
    assert cut.read_bytes() == zipped()
    assert [call["lines"] for call in biobank.asked()] == [[lines[1]]]


def test_a_cut_zip_stays_where_nothing_better_can_be_had(biobank):
    cut = biobank.has(biobank.wants(1)[0], zipped()[:-30])
    with pytest.raises(UserError, match=r"1 of the 1 zips .* missing or cut .*first 1000000_20252_2_0\.zip\. Give --key"):
        biobank.fetch(key=None)
    assert cut.read_bytes() == zipped()[:-30]


def test_a_zip_is_opened_once_in_its_life(biobank, monkeypatch):
    lines = biobank.wants(3)
    biobank.has(lines[0])
    opened = []
    monkeypatch.setattr(stage, "t1_problem", lambda members, member: opened.append(members) or "")
    biobank.fetch()
    biobank.fetch()
    assert len(opened) == 3
    os.utime(biobank.zips / stage.zip_name(lines[1]))  # a new time: another zip, for all that is known
    biobank.fetch()
    assert len(opened) == 4


def test_a_torn_list_of_checked_zips_costs_no_more_than_a_check(biobank):
    for line in biobank.wants(3):
        biobank.has(line)
    biobank.fetch()
    listed = biobank.table.with_name("fetched.checked.csv")
    listed.write_bytes(listed.read_bytes()[:-25])
    assert len(biobank.fetch(key=None)) == 3
    assert len(biobank.fetch(key=None)) == 3


def test_what_a_round_did_not_bring_is_asked_for_again(biobank, caplog):
    lines = biobank.wants(6)
    biobank.serve(cut_once=[lines[1], lines[4]])
    biobank.fetch(calls=1)
    assert [call["lines"] for call in biobank.asked()] == [lines, [lines[1], lines[4]]]
    assert "2 scans did not come" in caplog.text


def test_what_never_comes_is_counted_named_and_listed_and_the_rest_kept(biobank):
    lines = biobank.wants(6)
    biobank.serve(absent=[lines[2], lines[5]])
    with pytest.raises(UserError) as raised:
        biobank.fetch(calls=1)
    for told in (str(biobank.bulk), "2 of its 6", "3 rounds", repr(lines[2]), "withdrawn", "missing.bulk"):
        assert told in str(raised.value)
    assert [len(call["lines"]) for call in biobank.asked()] == [6, 2, 2]
    assert (biobank.zips / ".ukbfetch" / "missing.bulk").read_text().splitlines() == [lines[2], lines[5]]
    assert len(list(biobank.zips.glob("*.zip"))) == 4
    assert not biobank.table.exists()
    biobank.bulk.write_text("\n".join(line for line in lines if line not in (lines[2], lines[5])))
    assert len(biobank.fetch(key=None)) == 4


def test_the_list_of_what_is_missing_holds_nothing_that_came_in_the_last_round(biobank, monkeypatch):
    monkeypatch.setattr(stage, "ROUNDS", 1)
    lines = biobank.wants(3)
    biobank.serve(cut_once=lines[1:2])
    with pytest.raises(UserError, match="1 of its 3 scans"):
        biobank.fetch()
    assert (biobank.zips / ".ukbfetch" / "missing.bulk").read_text() == f"{lines[1]}\n"


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 30
    while not (path.exists() and path.stat().st_size):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.02)


def test_after_kill_9_of_a_job_only_the_rest_is_asked_for(biobank):
    lines = biobank.wants(5)
    biobank.serve(stall_once=[lines[3]], stall=60)
    with biobank.start() as job:
        wait_for(biobank.zips / ".ukbfetch" / stage.zip_name(lines[3]), job)
        os.killpg(job.pid, signal.SIGKILL)
    assert list(biobank.zips.glob("*.zip")) == []  # nothing unchecked under a final name
    with biobank.start() as again:
        told = again.stdout.read()
    assert again.returncode == 0, told
    assert [call["lines"] for call in biobank.asked()] == [lines, lines[3:]]
    assert [path.read_bytes() for path in biobank.zips.glob("*.zip")] == [zipped()] * 5


def test_calls_that_a_killed_run_left_are_waited_for_and_what_they_bring_is_taken(biobank):
    lines = biobank.wants(4)
    biobank.serve(stall_once=[lines[1]], stall=60)
    with biobank.start() as job:
        wait_for(biobank.zips / ".ukbfetch" / stage.zip_name(lines[1]), job)
        job.kill()  # it alone, as when memory is short: its call goes on
    with biobank.start() as again:
        told = ""
        while "waiting for their end" not in told and (line := again.stdout.readline()):
            told += line
        (biobank.service / "go_on").touch()
        told += again.stdout.read()
    assert again.returncode == 0, told
    assert "waiting for their end" in told
    assert [call["lines"] for call in biobank.asked()] == [lines]


def test_ctrl_c_ends_the_calls_too(biobank):
    lines = biobank.wants(2)
    biobank.serve(stall_once=[lines[0]], stall=60)
    with biobank.start() as job:
        wait_for(biobank.zips / ".ukbfetch" / stage.zip_name(lines[0]), job)
        job.send_signal(signal.SIGINT)  # to the stage alone
        told, _ = job.communicate(timeout=30)  # ends only when the call has ended, too
    assert job.returncode == 130 and "Traceback" not in told


@pytest.mark.parametrize("accepted", [True, False])
def test_nothing_of_the_key_is_shown_or_written(biobank, caplog, accepted):
    lines = biobank.wants(2)
    if accepted:
        with biobank.start() as job:
            told = job.stdout.read()
        assert job.returncode == 0 and "-a" in told
    else:
        biobank.serve(key=["1", "2"])  # ukbfetch answers with all that stands in the key file
        with pytest.raises(UserError, match=r"authentication failed for application \*\*\* with \*\*\*") as raised:
            biobank.fetch()
        told = str(raised.value) + caplog.text
        assert repr(lines[0]) in told
    biobank.key.unlink()
    (biobank.service / "service.json").unlink()
    told += "".join(path.read_text(errors="replace") for path in biobank.folder.rglob("*") if path.is_file())
    assert APPLICATION not in told and PASSWORD not in told


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (None, None, r"no such key file"),
        (f"{APPLICATION}\n{PASSWORD}\n", 0o640, r"open to others \(mode 640\).*chmod 600 "),
        (f"{APPLICATION}\n{PASSWORD}\n", 0o604, r"open to others \(mode 604\).*chmod 600 "),
        ("", 0o600, r"found 0 lines, expected two"),
        (f"{PASSWORD}\n", 0o600, r"found 1 lines, expected two"),
        (f"{PASSWORD}\n{APPLICATION}\n", 0o600, r"found 2 lines, expected two: the number of the application, then"),
        (f"{APPLICATION}\n{PASSWORD}\n{PASSWORD}\n", 0o400, r"found 3 lines, expected two"),
        (f"{APPLICATION}\n{PASSWORD[:9]} {PASSWORD[9:]}\n", 0o600, r"expected two"),
    ],
)
def test_a_bad_key_file_is_told_by_name_and_never_by_content(biobank, content, mode, message):
    biobank.wants(1)
    biobank.key.unlink()
    if content is not None:
        biobank.key.write_text(content)
        biobank.key.chmod(mode)
    with pytest.raises(UserError, match=message) as raised:
        biobank.fetch()
    assert str(biobank.key) in str(raised.value)
    assert APPLICATION not in str(raised.value) and PASSWORD[:9] not in str(raised.value)
    assert biobank.asked() == []


def test_a_program_that_is_not_there_is_told_with_where_to_get_it_and_that_zips_do(biobank):
    biobank.wants(1)
    with pytest.raises(UserError, match=r"no-such: no such program.*showcase/download\.cgi.*put them into .*zips"):
        biobank.fetch(program="no-such")


def test_a_program_for_another_system_is_told(biobank):
    biobank.wants(1)
    biobank.program.write_bytes(b"MZ\x90\x00")
    with pytest.raises(UserError, match=r"cannot be run \(Exec format error\)"):
        biobank.fetch()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"ukb\.bulk: no such bulk file; make it with: ukbconv"),
        ("\n\n", r"ukb\.bulk: the bulk file has no lines"),
        ("1002532 20252_2_0\n\n1002533\n", r"ukb\.bulk, line 3: found '1002533', expected .*'1002532 20252_2_0'"),
        ("1002532 20252-2.0\n", r"line 1: found '1002532 20252-2\.0'"),
        ("eid,field\n", r"line 1: found 'eid,field'"),
        ("1002532 20252_2_0 1002533 20252_2_0", r"line 1: found"),
        ("../../x 20252_2_0", r"line 1: found"),
    ],
)
def test_a_bad_bulk_file_is_told_by_file_and_line(biobank, text, message):
    if text is not None:
        biobank.bulk.write_text(text)
    with pytest.raises(UserError, match=message):
        biobank.fetch()


def test_the_key_given_as_bulk_file_does_not_show_the_password(biobank):
    with pytest.raises(UserError) as raised:
        biobank.fetch(bulk=biobank.key)
    assert PASSWORD[:9] not in str(raised.value)


def test_lines_that_stand_twice_or_come_from_windows_are_fetched_once(biobank, caplog):
    biobank.bulk.write_bytes(b"\xef\xbb\xbf1002532 20252_2_0\r\n1002533 20252_2_0\r\n1002532\t20252_2_0\r\n\r\n")
    table = biobank.fetch(calls=1)
    assert table["eid"].tolist() == ["1002532", "1002533"]
    assert [call["lines"] for call in biobank.asked()] == [["1002532 20252_2_0", "1002533 20252_2_0"]]
    assert "1 lines repeat another" in caplog.text


def test_40000_zips_are_planned_in_well_under_a_second(biobank):
    lines = biobank.wants(40_000)
    seed = biobank.has(lines[0])
    for line in lines[1:]:
        os.link(seed, biobank.zips / stage.zip_name(line))
    stamp = f"{seed.stat().st_size}:{seed.stat().st_mtime_ns}:{BRAIN}"
    listed = biobank.folder / "checked.csv"
    listed.write_text("".join(f"{stage.zip_name(line)},{stamp},,7d0-1\n" for line in lines[:-1]))
    began = time.process_time()  # of this process alone, for the machine may be busy
    missing = stage.not_there(stage.read_bulk(biobank.bulk), biobank.zips, stage.Checked(listed))
    assert time.process_time() - began < 1
    assert missing == []


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        (GOOD, ""),
        ({BRAIN: b"scan"}, ""),
        ({"T1/unusable/T1.nii.gz": b"bad"}, "scan: unusable (UK Biobank put it under T1/unusable)"),
        (GOOD | {"T1/unusable/T1_orig.nii.gz": b"bad"}, "scan: unusable (UK Biobank put it under T1/unusable)"),
        ({HEAD: b"head"}, "scan: no T1/T1_brain.nii.gz in the zip"),
    ],
)
def test_an_unusable_scan_keeps_its_row_with_the_reason_and_is_never_unpacked(biobank, members, problem):
    path = biobank.has(biobank.wants(1)[0], zipped(members))
    first = biobank.fetch(key=None)
    pd.testing.assert_frame_equal(biobank.fetch(key=None), first)  # from the list
    assert first["problem"].tolist() == [problem]
    assert (first["path"] == "").tolist() == (first["fingerprint"] == "").tolist() == [bool(problem)]
    if not problem:
        scan, matrix = read_t1_zip(path)
        assert scan == members[BRAIN]
        assert (read_flirt(matrix, path).tolist() == np.eye(4).tolist()) if MATRIX in members else not matrix
        with pytest.raises(UserError, match=r"no T1/T1_unbiased\.nii\.gz in the zip"):
            read_t1_zip(path, "T1/T1_unbiased.nii.gz")
    else:
        with pytest.raises(UserError) as raised:
            read_t1_zip(path)
        assert problem in str(raised.value) and str(path) in str(raised.value)


def test_another_member_is_another_scan(biobank):
    biobank.has(biobank.wants(1)[0])
    brain, head = (biobank.fetch(key=None, member=member).loc[0] for member in MEMBERS[:2])
    assert brain["path"].endswith(BRAIN) and head["path"].endswith(HEAD)
    assert head["fingerprint"] == f"af0-{zlib.crc32(GOOD[HEAD]):08x}" != brain["fingerprint"]
    with zipfile.ZipFile(biobank.zips / "1000000_20252_2_0.zip") as archive:
        assert fingerprint_in(archive, HEAD) == head["fingerprint"]


def test_a_scan_damaged_inside_a_whole_zip_is_told_when_it_is_read(tmp_path):
    content = zipped()
    (tmp_path / "a.zip").write_bytes(content.replace(b"scanscan", b"scanScan", 1))
    with pytest.raises(UserError, match=r"a\.zip: damaged .*fetch it again"):
        read_t1_zip(tmp_path / "a.zip")


@pytest.mark.parametrize("text", [b"", b"1 0 0\n0 1 0\n", b"\xff\xfe", b"a b c d\n" * 4, b"0 0 0 1\n" * 4, b"1 0 0 0\n" * 4])
def test_what_is_no_matrix_of_flirt_is_told(text):
    with pytest.raises(UserError, match=r"linear\.mat: not a matrix of FLIRT"):
        read_flirt(text, "linear.mat")


@pytest.mark.parametrize("side", ["radiological", "neurological"])
def test_the_linear_matrix_puts_a_scan_into_mni_space_without_resampling(side):
    """A scan is cut from the template by a known world affine; its FLIRT matrix is fitted to landmarks, index by index."""
    template = load_mni152_template(resolution=2)
    head = np.asarray(template.get_fdata(), dtype=np.float32)
    mark, mirrored = np.s_[60:70, 50:60, 45:55], np.s_[29:39, 50:60, 45:55]
    head[mark] = 2  # in one hemisphere: a mirrored result would not hide in a head that is nearly symmetric
    turn, lean = np.deg2rad([8, -5])
    turned = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    leant = np.array([[1, 0, 0], [0, np.cos(lean), -np.sin(lean)], [0, np.sin(lean), np.cos(lean)]])
    subject_to_mni = np.eye(4)
    subject_to_mni[:3, :3] = turned @ leant @ np.diag([1.08, 0.95, 1.02])
    subject_to_mni[:3, 3] = [4, -7, 11]

    shape, mm = (76, 96, 72), np.array([2.5, 2.2, 3.0])
    scanner = np.diag([*mm, 1.0])  # the scan's own header
    scanner[:3, 3] = -mm * np.array(shape) / 2 + [0, -18, 12]
    if side == "radiological":
        scanner[0] *= -1
    voxels = affine_transform(head, np.linalg.inv(template.affine) @ subject_to_mni @ scanner, output_shape=shape, order=1)
    scan = nib.Nifti1Image(voxels, scanner)

    flirt_in, flirt_ref = [], []
    for i, j, k in np.random.default_rng(0).integers(0, shape, (12, 3)):
        x, y, z, _ = subject_to_mni @ scanner @ [i, j, k, 1]
        flirt_ref.append([90 - x, y + 126, z + 72])  # MNI152_T1_1mm: voxel 90, 126, 72 is the origin, x from the right
        flirt_in.append([(i if side == "radiological" else shape[0] - 1 - i) * mm[0], j * mm[1], k * mm[2], 1])
    flirt = np.vstack([np.linalg.lstsq(np.array(flirt_in), np.array(flirt_ref), rcond=None)[0].T, [0, 0, 0, 1]])

    affine = mni_affine(scan, flirt)
    np.testing.assert_allclose(affine, subject_to_mni @ scanner, atol=1e-6)
    seen = affine_transform(voxels, np.linalg.inv(affine) @ template.affine, output_shape=head.shape, order=1)
    assert np.corrcoef(head[seen > 0], seen[seen > 0])[0, 1] > 0.95
    assert seen[mark].mean() > 1.7 and seen[mirrored].mean() < 1

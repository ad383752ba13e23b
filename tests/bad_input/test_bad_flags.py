"""Calling a command: what is bad ends it with status 1 and one line for the user, and leaves no file."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "flags", "message"),
    [
        (
            "organize",
            ["--labels=l.csv", "--scans=s.csv", "--columns={}", "--table=none.csv"],
            "none.csv: no such table. Check the `table` of the dataset.",
        ),
        (
            "download",
            ["--file=a.tar", "--url=ftp://x.org/a.tar"],
            "cannot download a.tar from 'ftp://x.org/a.tar': expected an address that begins http:// or https://",
        ),
        (
            "ukbfetch",
            ["--table=t.csv", "--bulk=ukb.bulk", "--zips=zips"],
            "ukb.bulk: no such bulk file; make it with: ukbconv ukb.enc_ukb bulk -s20252",
        ),
    ],
)
def test_a_command_ends_with_1_and_these_words_alone(module, flags, message, tmp_path):
    ended = subprocess.run([sys.executable, "-m", f"mriflow.{module}", *flags], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"error: {message}\n")
    assert list(tmp_path.iterdir()) == []

"""Fetching from UK Biobank: a key, bulk file or table that cannot be right is refused, and no secret of the key is shown."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from bad_input.cases import GZ, case, of_group
from conftest import ROOT
from mriflow.images.ukb_zip import BRAIN
from mriflow.organize import organize
from mriflow.ukbfetch import fetch
from test_ukbfetch import APPLICATION, PASSWORD, zipped

BULK = "1002532 20252_2_0\n"


def key(content: str | None, mode: int = 0o600, bulk: str = BULK, **options) -> Callable:
    """Fetch a scan with a key file of this content, or a folder in its place (None)."""

    def act(folder):
        file = folder / ".ukbkey"
        file.mkdir() if content is None else file.write_text(content)
        file.chmod(mode)
        (folder / "ukb.bulk").write_text(bulk)
        given = {"bulk": folder / "ukb.bulk", "zips": folder / "zips", "key": file, "program": "no-such-ukbfetch"} | options
        return str(fetch(folder / "fetched.csv", **given))

    return act


def participants(text: str, columns: dict | None = None) -> Callable:
    """Join a scan of participant 11 at instance 2 with a table of UK Biobank."""

    def act(folder):
        (folder / "1.zip").write_bytes(zipped({BRAIN: GZ}))
        rows = {"eid": "11", "field": "20252", "instance": "2", "array": "0", "path": f"1.zip/{BRAIN}", "problem": ""}
        pd.DataFrame([rows | {"fingerprint": "f"}]).to_csv(folder / "fetched.csv", index=False)
        (folder / "ukb.csv").write_text(text)
        own = yaml.safe_load((ROOT / "config/datasets/ukb.yaml").read_text())["columns"]
        files = {"table": folder / "ukb.csv", "fetched": folder / "fetched.csv"}
        return organize(folder / "l.csv", folder / "s.csv", columns=columns or own, **files)["problem"].iloc[0]

    return act


BIOBANK = [
    case(
        key(f"{APPLICATION}\n{PASSWORD}\n", 0o640),
        "{tmp}/.ukbkey: the key file is open to others (mode 640), expected its owner alone. Run: chmod 600 {tmp}/.ukbkey",
        id="key open to the group",
    ),
    case(
        key(f"{APPLICATION}\n{PASSWORD}\n", 0o604),
        "{tmp}/.ukbkey: the key file is open to others (mode 604), expected its owner alone. Run: chmod 600 {tmp}/.ukbkey",
        id="key open to others",
    ),
    case(
        key(""),
        "{tmp}/.ukbkey: found 0 lines, expected two: the number of the application, then the password. Save it "
        "again from UK Biobank's e-mail.",
        id="empty key",
    ),
    case(
        key(f"{PASSWORD}\n"),
        "{tmp}/.ukbkey: found 1 lines, expected two: the number of the application, then the password. Save it "
        "again from UK Biobank's e-mail.",
        id="key of one line",
    ),
    case(
        key(f"{PASSWORD}\n{APPLICATION}\n"),
        "{tmp}/.ukbkey: found 2 lines, expected two: the number of the application, then the password. Save it "
        "again from UK Biobank's e-mail.",
        id="key with its lines exchanged",
    ),
    case(
        key(f"{APPLICATION}\n{PASSWORD}\n{PASSWORD}\n"),
        "{tmp}/.ukbkey: found 3 lines, expected two: the number of the application, then the password. Save it "
        "again from UK Biobank's e-mail.",
        id="key of three lines",
    ),
    case(
        key(f"{APPLICATION}\n{PASSWORD[:9]} {PASSWORD[9:]}\n"),
        "{tmp}/.ukbkey: found 2 lines, expected two: the number of the application, then the password. Save it "
        "again from UK Biobank's e-mail.",
        id="key with a blank in the password",
    ),
    case(
        key(None, 0o700),
        "{tmp}/.ukbkey: a folder, not a key file. 1 of the 1 zips for {tmp}/ukb.bulk are missing or cut in "
        "{tmp}/zips, first 1002532_20252_2_0.zip. UK Biobank sent it by e-mail; or put the zips there yourself.",
        id="folder for a key",
    ),
    case(
        key("", key=None),
        "1 of the 1 zips for {tmp}/ukb.bulk are missing or cut in {tmp}/zips, first 1002532_20252_2_0.zip. Give "
        "--key, the key file (.ukbkey) that UK Biobank sent, or put the zips there yourself.",
        id="no key given",
    ),
    case(
        key("", key=Path("/no/such/key")),
        "/no/such/key: no such key file, or not yours. 1 of the 1 zips for {tmp}/ukb.bulk are missing or cut in "
        "{tmp}/zips, first 1002532_20252_2_0.zip. UK Biobank sent it by e-mail; or put the zips there yourself.",
        id="no such key",
    ),
    case(
        key(f"{APPLICATION}\n{PASSWORD}\n"),
        "no-such-ukbfetch: no such program. 1 of the 1 zips for {tmp}/ukb.bulk are missing or cut in {tmp}/zips, "
        "first 1002532_20252_2_0.zip. Get ukbfetch from https://biobank.ndph.ox.ac.uk/showcase/download.cgi, "
        "make it executable (chmod +x) and give its path as --program. Zips that you have already do as well: "
        "put them into {tmp}/zips.",
        id="no ukbfetch",
    ),
    case(
        key("", calls=11),
        "--calls 11: UK Biobank allows at most 10 calls at once for one application; give 1 to 10.",
        id="too many calls at once",
    ),
    case(
        key("", bulk=""),
        "{tmp}/ukb.bulk: the bulk file has no lines; make it with: ukbconv ukb.enc_ukb bulk -s20252",
        id="empty bulk file",
    ),
    case(
        key("", bulk="1002532 20252_2_0\n\n1002533\n"),
        "{tmp}/ukb.bulk, line 3: found '1002533', expected a participant and a data file like '1002532 "
        "20252_2_0'. Correct it, or make it with: ukbconv ukb.enc_ukb bulk -s20252",
        id="bulk line without a data file",
    ),
    case(
        key("", bulk="eid,field\n"),
        "{tmp}/ukb.bulk, line 1: found 'eid,field', expected a participant and a data file like '1002532 "
        "20252_2_0'. Correct it, or make it with: ukbconv ukb.enc_ukb bulk -s20252",
        id="table for a bulk file",
    ),
    case(
        key("", bulk="../../x 20252_2_0\n"),
        "{tmp}/ukb.bulk, line 1: found '../../x 20252_2_0', expected a participant and a data file like '1002532 "
        "20252_2_0'. Correct it, or make it with: ukbconv ukb.enc_ukb bulk -s20252",
        id="bulk line that leads outside",
    ),
    case(
        participants("eid,31-0.0,21003-2.0\n11,7,60\n"),
        "sex: unknown code ('7', expected 0 or 1)",
        id="code of UK Biobank that there is not",
    ),
    case(
        participants("eid,31-0.0,21003-2.0\n11,0,60\n11,0,61\n"), "age: contradictory (60, 61)", id="participant with two ages"
    ),
    case(
        participants("eid,31-0.0\n11,0\n"),
        "{tmp}/ukb.csv: has no column '21003-2.0'. It has: 'eid', '31-0.0'. The first line has to name the columns.",
        id="table without the age at the scan",
    ),
    case(
        participants("eid,31-0.0,21003-2.0\n12,0,60\n"),
        "{tmp}/ukb.csv: none of its 1 participant(s) is in the bulk file. It has such as '12', the bulk file "
        "'11'. Are the two of one application?",
        id="table of other participants",
    ),
]


@pytest.mark.parametrize(("act", "message"), of_group("biobank", BIOBANK))
def test_what_the_user_reads(act, message, shown):
    assert shown(act) == message

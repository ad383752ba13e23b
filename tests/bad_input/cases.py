"""How a case of bad input is written down, and the contents that several stages are given."""

import gzip

import nibabel as nib
import numpy as np
import pytest

case = pytest.param
WEB_PAGE = b"<!DOCTYPE html>\n<html><body>Please log in</body></html>"
NII = nib.Nifti1Image(np.arange(16**3, dtype=np.int16).reshape(16, 16, 16), np.diag([4, 4, 4, 1.0])).to_bytes()
GZ = gzip.compress(NII, mtime=0)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
ANNEX = b"/annex/objects/MD5E-s5663--4bf1af35b5c2d1.nii.gz\n"
DICOM = bytes(128) + b"DICM" + bytes(400)
NAME = "S001-A-T1.nii.gz"
PATTERN = r"(?P<subject>S\d+)-(?P<site>\w+)-T1\.nii\.gz"


def of_group(group: str, cases: list) -> list:
    """Return the cases with the name of their group before their own, as the ids of their tests."""
    return [case(*one.values, id=f"{group}: {one.id}") for one in cases]

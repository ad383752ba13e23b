"""Finding images: from an archive that is broken or unsafe nothing is taken; a folder or image that is no use is named."""

import io
import tarfile
from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest

from bad_input.cases import DICOM, GZ, NAME, NII, PATTERN, WEB_PAGE, case, of_group
from mriflow.images.find import find_images
from mriflow.organize import organize
from test_ukbfetch import zipped


def archive(*entries: tarfile.TarInfo | str, cut: slice = slice(None), name: str = "a.tar") -> Callable:
    """Take the images of a tar archive with these entries."""

    def act(folder):
        with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as tar:
            for entry in entries:
                info = entry if isinstance(entry, tarfile.TarInfo) else tarfile.TarInfo(entry)
                content = GZ if info.isreg() else b""
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        (folder / name).write_bytes((folder / name).read_bytes()[cut])
        listed = find_images([folder / name], PATTERN, folder / "unpacked")
        assert not (folder.parent / NAME).exists()
        return ", ".join(listed["id"])

    return act


def entry(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(NAME)
    info.type, info.linkname = kind, target
    return info


def file(content: bytes, name: str = "a.tar") -> Callable:
    """Take the images of a file that is no archive."""

    def act(folder):
        (folder / name).write_bytes(content)
        return str(find_images([folder / name], PATTERN, folder / "unpacked"))

    return act


def images(*files: tuple[str, bytes], pattern: str = r"(?P<subject>S\d+)\.(hdr|nii)", affine=None) -> Callable:
    """Take the images of a folder; return the first problem that a scan has."""

    def act(folder):
        for name, content in files:
            (folder / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "scans" / name).write_bytes(content)
        labels, scans = folder / "data/labels.csv", folder / "data/scans.csv"
        columns = {"subject": {"from": "subject"}}
        rows = organize(labels, scans, images=[folder / "scans"], pattern=pattern, affine=affine, columns=columns)
        return rows.sort_values("problem", ascending=False)["problem"].iloc[0]

    return act


def analyze(*spacing: float) -> tuple[bytes, bytes]:
    """Return header and voxels of an Analyze image."""
    scan = nib.AnalyzeImage(np.zeros((16, 16, 16), np.int16), np.diag([*(spacing or (1, 1, 1)), 1]))
    files = {kind: io.BytesIO() for kind in ("header", "image")}
    scan.to_file_map({kind: nib.FileHolder(fileobj=stream) for kind, stream in files.items()})
    return files["header"].getvalue(), files["image"].getvalue()


HDR, IMG = analyze()


ARCHIVES = [
    case(
        archive(NAME, cut=slice(700)),
        "{tmp}/a.tar: broken or no tar archive (it ends too early). Delete it and download it again.",
        id="tar cut short",
    ),
    case(
        archive(NAME, "S002-A-T1.nii.gz", cut=slice(-8192)),
        "{tmp}/a.tar: broken or no tar archive (it ends too early). Delete it and download it again.",
        id="tar without its end",
    ),
    case(
        archive(NAME, name="a.tar.gz", cut=slice(-20)),
        "{tmp}/a.tar.gz: broken or no tar archive (Compressed file ended before the end-of-stream marker was "
        "reached). Delete it and download it again.",
        id="tar.gz cut short",
    ),
    case(
        archive(f"../{NAME}"),
        "{tmp}/a.tar: refused, for its entry '../S001-A-T1.nii.gz' is unsafe (name that leads outside). Get it "
        "from its publisher.",
        id="name that leads outside",
    ),
    case(
        archive(f"a/../../{NAME}"),
        "{tmp}/a.tar: refused, for its entry 'a/../../S001-A-T1.nii.gz' is unsafe (name that leads outside). Get "
        "it from its publisher.",
        id="name that leads outside, hidden",
    ),
    case(archive(f"/etc/{NAME}"), "S001-A-T1", id="absolute name, made harmless"),
    case(
        archive(entry(tarfile.SYMTYPE, "/etc/passwd")),
        "{tmp}/a.tar: refused, for its entry 'S001-A-T1.nii.gz' is unsafe (link that leads outside). Get it from "
        "its publisher.",
        id="link to outside",
    ),
    case(
        archive(entry(tarfile.SYMTYPE, "b.nii.gz")),
        "{tmp}/a.tar: S001-A-T1.nii.gz is a link, not an image. Get the archive from its publisher.",
        id="link within",
    ),
    case(
        archive(entry(tarfile.LNKTYPE, "../b.nii.gz")),
        "{tmp}/a.tar: refused, for its entry 'S001-A-T1.nii.gz' is unsafe (link that leads outside). Get it from "
        "its publisher.",
        id="hard link to outside",
    ),
    case(
        archive(entry(tarfile.CHRTYPE)),
        "{tmp}/a.tar: refused, for its entry 'S001-A-T1.nii.gz' is unsafe (special file). Get it from its publisher.",
        id="device",
    ),
    case(
        archive(entry(tarfile.FIFOTYPE)),
        "{tmp}/a.tar: refused, for its entry 'S001-A-T1.nii.gz' is unsafe (special file). Get it from its publisher.",
        id="pipe",
    ),
    case(
        archive("readme.txt"),
        "{tmp}/a.tar: no images in it (.nii, .nii.gz, .hdr, .mgz, .mgh). Check the `images` of the dataset.",
        id="archive without images",
    ),
    case(
        archive("wrong.nii.gz"),
        "{tmp}/a.tar: none of its 1 images has a name that fits the `pattern` "
        "'(?P<subject>S\\\\d+)-(?P<site>\\\\w+)-T1\\\\.nii\\\\.gz' of the dataset; the first is 'wrong.nii.gz'. Correct "
        "the `pattern`.",
        id="archive of images with other names",
    ),
    case(
        archive(f"a/{NAME}", f"b/{NAME}"),
        "{tmp}/a.tar: holds two images that would have the name 'S001-A-T1.nii.gz'. Unpack it by hand and give the folder, "
        "or name what is not meant in `ignore`.",
        id="two images of one name",
    ),
    case(
        file(zipped({NAME: GZ})),
        "{tmp}/a.tar: is zip, expected .tar or .tar.gz. Unpack it and give the folder.",
        id="zip for a tar",
    ),
    case(
        file(b"7z\xbc\xaf\x27\x1c" + bytes(99)),
        "{tmp}/a.tar: is 7z, expected .tar or .tar.gz. Unpack it and give the folder.",
        id="7z for a tar",
    ),
    case(
        file(b"\xfd7zXZ\0" + bytes(99), "a.tar.xz"),
        "{tmp}/a.tar.xz: is xz, expected .tar or .tar.gz. Unpack it and give the folder.",
        id="xz",
    ),
    case(
        file(WEB_PAGE),
        "{tmp}/a.tar: is a web page, not an archive. Log in at the site, delete it and download it again.",
        id="web page for a tar",
    ),
    case(
        file(WEB_PAGE, "a.tar.gz"),
        "{tmp}/a.tar.gz: is a web page, not an archive. Log in at the site, delete it and download it again.",
        id="web page for a tar.gz",
    ),
    case(file(b""), "{tmp}/a.tar: the file is empty. Delete it and download it again.", id="empty file for a tar"),
    case(
        file(GZ, NAME),
        "{tmp}/S001-A-T1.nii.gz: is an image, not an archive. Give the folder that it is in as `images`.",
        id="an image for an archive",
    ),
    case(
        file(b"no archive" * 200),
        "{tmp}/a.tar: broken or no tar archive (it ends too early). Delete it and download it again.",
        id="text for a tar",
    ),
    case(
        lambda folder: str(find_images([folder / "a.tar"], PATTERN, folder)),
        "{tmp}/a.tar: no such archive or folder of images. Check the `images` (or `bids`) of the dataset.",
        id="no archive",
    ),
    case(
        lambda folder: str(find_images([folder], PATTERN, folder)),
        "{tmp}: no images in it (.nii, .nii.gz, .hdr, .mgz, .mgh). Check the `images` of the dataset.",
        id="folder without images",
    ),
    case(
        images(("IM0001", DICOM)),
        "{tmp}/scans: no images in it (.nii, .nii.gz, .hdr, .mgz, .mgh). Check the `images` of the dataset. "
        "{tmp}/scans/IM0001 is DICOM: make NIfTI files of it first, with dcm2niix "
        "(https://github.com/rordenlab/dcm2niix): dcm2niix -z y -o nifti FOLDER.",
        id="folder of DICOM files",
    ),
    case(
        images(("a/1.dcm", b"")),
        "{tmp}/scans: no images in it (.nii, .nii.gz, .hdr, .mgz, .mgh). Check the `images` of the dataset. "
        "{tmp}/scans/a/1.dcm is DICOM: make NIfTI files of it first, with dcm2niix "
        "(https://github.com/rordenlab/dcm2niix): dcm2niix -z y -o nifti FOLDER.",
        id="folder of files called dcm",
    ),
    case(
        images(("S1.hdr", HDR), ("S1.img", IMG)),
        "{tmp}/scans/S1.hdr: the header of an Analyze image does not say how it is oriented. Give the dataset's "
        "`affine` (4 x 4, voxel to RAS+ mm).",
        id="Analyze image without a given orientation",
    ),
    case(
        images(("S1.hdr", HDR), affine=np.eye(4)),
        "scan: Analyze image cannot be read (S1.hdr, no .img beside it)",
        id="Analyze header without its voxels",
    ),
    case(
        images(("S1.hdr", HDR), ("S1.img", IMG[:99]), affine=np.eye(4)),
        "scan: Analyze image cannot be read (S1.hdr, it is damaged)",
        id="Analyze image cut short",
    ),
    case(
        images(("S1.hdr", b""), ("S1.img", IMG), affine=np.eye(4)),
        "scan: Analyze image cannot be read (S1.hdr, it is damaged)",
        id="Analyze image with an empty header",
    ),
    case(
        images(("S1.hdr", analyze(1, 1, 2.5)[0]), ("S1.img", IMG), affine=np.diag([1.0, 1.005, 1, 1])),
        "scan: voxel size is not that of the dataset's affine (S1.hdr: 1 x 1 x 2.5 mm, expected 1 x 1.005 x 1 mm)",
        id="Analyze image of other voxels than the affine's",
    ),
    case(
        images(("S1.hdr", HDR), ("S1.img", IMG), affine=np.diag([2.0, 2, 2, 1])),
        "",
        id="Analyze image that does not tell its voxel size",
    ),
    case(images(("S1.nii", NII), ("S2.nii", NII)), "scan: same image as another subject (S2)", id="one image of two subjects"),
    case(images(("S1.nii", NII), ("S2.nii", b"")), "scan: file is empty (S2.nii)", id="an empty file among images"),
]


@pytest.mark.parametrize(("act", "message"), of_group("archive", ARCHIVES))
def test_what_the_user_reads(act, message, shown):
    assert shown(act) == message

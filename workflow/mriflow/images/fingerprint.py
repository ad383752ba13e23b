"""Recognise an image by its content, however it is compressed and whatever its header says.

The voxels have a checksum of their own, apart from the header's: the same scan is recognised when it was compressed anew,
unpacked, or given another header. It is not recognised if its voxels were stored in another way: as another type or byte order,
with the axes turned, or resampled.
"""

import gzip
import hashlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from mriflow.images.kinds import is_gzipped

BLOCK = 2**22  # bytes that are read at once


def fingerprint(image: Path) -> str:
    """Return a text that two files share only if they hold the same: ``<length>-<CRC of the voxels>.<CRC of the header>``.

    Length (bytes of voxels) and the CRC-32 sums are hexadecimal. What stands before the dot is of the voxels alone
    (`voxels_of`). A damaged file, and one that is not what its name says, has a fingerprint of its bytes as they are.
    """
    try:
        blocks = header_and_voxels(image)
        header = zlib.crc32(next(blocks))
        length = voxels = 0
        for block in blocks:
            length, voxels = length + len(block), zlib.crc32(block, voxels)
    except (OSError, EOFError, zlib.error):
        with open(image, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:32]
    return f"{length:x}-{voxels:08x}.{header:08x}"


def voxels_of(fingerprint: str) -> str:
    """Return the part of a fingerprint that two images with the same voxels share.

    >>> voxels_of("1680-12345678.9abcdef0")
    '1680-12345678'
    """
    return fingerprint.partition(".")[0]


def hash_of_voxels(image: Path) -> str:
    """Return the SHA-256 of an image's voxels, as they are stored; a CRC of 32 bits may be equal by chance."""
    digest = hashlib.sha256()
    try:
        blocks = header_and_voxels(image)
        next(blocks)
        for block in blocks:
            digest.update(block)
    except (OSError, EOFError, zlib.error):  # damaged: the hash of what can be read of it
        pass
    return digest.hexdigest()


def header_and_voxels(image: Path) -> Iterator[bytes]:
    """Yield the header of an image, unpacked, and then its voxels, block by block.

    The header has all that stands before the voxels. It is empty if this is no NIfTI file: then all of it counts as voxels.
    """
    opened = gzip.open if is_gzipped(image) else open
    with opened(image, "rb") as stream:
        block = stream.read(BLOCK)
        begin = header_length(block)
        yield block[:begin]
        yield block[begin:]
        while block := stream.read(BLOCK):
            yield block


def header_length(begin: bytes) -> int:
    """Return how many bytes stand before the voxels of a NIfTI file, as its first bytes say; 0 for anything else."""
    if len(begin) < 352:
        return 0
    for order in "<>":
        size = struct.unpack_from(f"{order}i", begin)[0]
        if size == 348:  # NIfTI-1
            dimensions, offset = struct.unpack_from(f"{order}h", begin, 40)[0], struct.unpack_from(f"{order}f", begin, 108)[0]
        elif size == 540:  # NIfTI-2
            dimensions, offset = struct.unpack_from(f"{order}q", begin, 16)[0], struct.unpack_from(f"{order}q", begin, 168)[0]
        else:
            continue
        if size <= offset < len(begin) and 0 < dimensions < 8:
            return int(offset)
    return 0

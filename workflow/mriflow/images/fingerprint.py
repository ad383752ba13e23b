"""Know an image by its content; of a compressed one, without unpacking its voxels.

A gzip file ends with the CRC-32 and the length of what it holds (RFC 1952), whatever the level of compression. The part of
the header can be taken out of that CRC, so that what remains is of the voxels alone: the same scan is known again when it
was compressed anew, unpacked, or given another header. Not known again are voxels that were stored otherwise: as another
type or byte order, with the axes turned, resampled.
"""

import gzip
import hashlib
import struct
import zlib
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import IO, Any

BLOCK = 2**22
FIRST_BYTES = 1024  # in which the header says where it ends
POLYNOMIAL = 0xEDB88320  # of CRC-32, its lowest power in the highest bit


def fingerprint(image: Path) -> str:
    """Return a text that two files share only if they hold the same: ``<length>-<CRC of the voxels>.<CRC of the header>``.

    What stands before the dot is of the voxels alone (`voxels_of`). A file that is not what its name says has a fingerprint
    of its bytes.
    """
    with open(image, "rb") as stream:
        try:
            length, crc, head = sum_of_gzip(stream) if image.suffix == ".gz" else sum_of(stream)
        except (OSError, EOFError, zlib.error, struct.error):
            stream.seek(0)
            return hashlib.file_digest(stream, "sha256").hexdigest()[:32]
    begin, _ = extent(head)
    begin = begin if begin < min(len(head) + 1, length) else 0
    header = zlib.crc32(head[:begin])
    return f"{length - begin:x}-{crc_without_start(crc, header, length - begin):08x}.{header:08x}"


def voxels_of(fingerprint: str) -> str:
    """Return the part of a fingerprint that two images with the same voxels share."""
    return fingerprint.partition(".")[0]


def hash_of_voxels(image: Path) -> str:
    """Return a hash of all voxels of an image, as they are stored; that of a CRC's 32 bits may be equal by chance."""
    found = hashlib.sha256()
    opened = gzip.open if image.suffix == ".gz" else open
    try:
        with opened(image, "rb") as stream:
            block = stream.read(BLOCK)
            block = block[extent(block)[0] :]
            while block:
                found.update(block)
                block = stream.read(BLOCK)
    except (OSError, EOFError, zlib.error):  # damaged: what can be read of it
        pass
    return found.hexdigest()


def sum_of_gzip(stream: IO[bytes]) -> tuple[int, int, bytes]:
    """Return length, CRC-32 and first bytes of what a gzip file holds.

    Its end is believed if the length there is that of the image. It is not in a file of several gzip members (bgzip), whose
    end tells of the last one alone: such a file is read whole.
    """
    with gzip.open(stream) as unpacked:
        head = unpacked.read(FIRST_BYTES)
        begin, end = extent(head)
        head += unpacked.read(max(begin - len(head), 0))
        stream.seek(-8, 2)
        crc, length = struct.unpack("<II", stream.read())
        if end and length == end % 2**32:
            return end, crc, head
        stream.seek(0)
    with gzip.open(stream) as unpacked:
        return sum_of(unpacked)


def sum_of(stream: Any) -> tuple[int, int, bytes]:
    """Return length, CRC-32 and first bytes of a stream, which is read whole."""
    head = block = stream.read(BLOCK)
    length = crc = 0
    while block:
        length, crc = length + len(block), zlib.crc32(block, crc)
        block = stream.read(BLOCK)
    return length, crc, head


def extent(head: bytes) -> tuple[int, int]:
    """Return where the voxels of a NIfTI file begin and end, in bytes, as its first bytes tell; 0 and 0 of anything else."""
    for order in "<>":
        kind = struct.unpack(f"{order}i", head[:4])[0] if len(head) >= 352 else 0
        if kind == 348:
            sizes, bits = struct.unpack_from(f"{order}8h", head, 40), struct.unpack_from(f"{order}h", head, 72)[0]
            begin = struct.unpack_from(f"{order}f", head, 108)[0]
        elif kind == 540:
            sizes, bits = struct.unpack_from(f"{order}8q", head, 16), struct.unpack_from(f"{order}h", head, 14)[0]
            begin = struct.unpack_from(f"{order}q", head, 168)[0]
        else:
            continue
        if kind <= begin < BLOCK and 0 < sizes[0] < 8:
            return int(begin), int(begin) + prod(max(size, 1) for size in sizes[1 : sizes[0] + 1]) * bits // 8
    return 0, 0


def crc_without_start(whole: int, start: int, rest: int) -> int:
    """Return the CRC-32 of the last `rest` bytes of something, given its CRC-32 and that of what stands before them.

    It undoes zlib's ``crc32_combine``: the CRC of A and then B is that of A, shifted by the length of B, xor that of B.
    """
    return multiply(shift(rest), start) ^ whole


@lru_cache
def shift(length: int) -> int:
    """Return the polynomial by which a CRC-32 is multiplied when `length` bytes follow: x to the power of 8 * length."""
    power, square = 1 << 31, 1 << 23  # 1 and x^8
    while length:
        if length & 1:
            power = multiply(power, square)
        square, length = multiply(square, square), length >> 1
    return power


def multiply(a: int, b: int) -> int:
    """Multiply two polynomials modulo that of CRC-32; their lowest power stands in the highest bit."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (POLYNOMIAL if b & 1 else 0)
    return product

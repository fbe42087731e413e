"""The size that a compressed image claims, read from its header before anything is decoded.

A few hundred bytes can claim gigapixels (a decompression bomb), or thousands of passes over the
whole picture. Decoders allocate and work first; here it is seen what they would be in for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_BEGIN = struct.Struct(">I4sII")  # length and name of the first chunk, width, height

_JPEG_BEGIN = b"\xff\xd8"
_FRAMES = {0xC0 + i for i in range(16)} - {0xC4, 0xC8, 0xCC}  # markers before a size
_SCAN, _END = 0xDA, 0xD9
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers that nothing belongs to
_MOST_SCANS = 64  # of a progressive JPEG; encoders write about ten


@dataclass(frozen=True)
class ImageHeader:
    """What an image says about itself.

    format: "jpeg" or "png".
    height, width: in pixels, as stored: an EXIF orientation may turn the picture later.
    """

    format: str
    height: int
    width: int


def read_header(data: bytes) -> ImageHeader:
    """Reads the header of a JPEG or PNG image.

    Raises:
        ValueError: it is neither, ends too early, or is a JPEG of more passes than any camera's.
    """
    if data.startswith(_PNG_SIGNATURE):
        return _png(data)
    if data.startswith(_JPEG_BEGIN):
        return _jpeg(data)
    raise ValueError(f"begins with {data[:8]!r}, as neither JPEG nor PNG does")


def _png(data: bytes) -> ImageHeader:
    begin = len(_PNG_SIGNATURE)
    if len(data) < begin + _PNG_BEGIN.size:
        raise ValueError("PNG ends within its header")
    length, name, width, height = _PNG_BEGIN.unpack_from(data, begin)
    if (length, name) != (13, b"IHDR"):
        raise ValueError(f"PNG has {name!r} of {length} bytes where its header should be")
    return ImageHeader("png", height, width)


def _jpeg(data: bytes) -> ImageHeader:
    scans = data.count(bytes((0xFF, _SCAN)))
    if scans > _MOST_SCANS:
        raise ValueError(f"JPEG has {scans} scans, more than {_MOST_SCANS}")
    at = len(_JPEG_BEGIN)
    while True:
        # As libjpeg does: what is no marker is skipped.
        at = data.find(b"\xff", at)
        while 0 <= at < len(data) and data[at] == 0xFF:
            at += 1
        if not 0 <= at < len(data):
            raise ValueError("JPEG ends before it says its size")
        marker = data[at]
        at += 1
        if marker == 0 or marker in _ALONE:
            continue
        if marker in (_SCAN, _END):
            raise ValueError("JPEG has no size before its pixels")
        if at + 2 > len(data):
            raise ValueError("JPEG ends before it says its size")
        (length,) = struct.unpack_from(">H", data, at)
        if marker in _FRAMES:
            if at + 7 > len(data):
                raise ValueError("JPEG ends before it says its size")
            height, width = struct.unpack_from(">HH", data, at + 3)
            return ImageHeader("jpeg", height, width)
        at += max(length, 2)

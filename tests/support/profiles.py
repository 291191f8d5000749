"""A colour profile for grey pictures: neither Pillow nor libvips brings one."""

from __future__ import annotations

import struct

__all__ = ["grey_profile"]

WHITE = struct.pack(">3i", 63190, 65536, 54061)  # D50, s15Fixed16


def grey_profile(gamma: float) -> bytes:
    """An ICC profile of grey samples that are light to the power of 1 / `gamma`.

    Source: ICC.1:2001-04, 6.1 (header), 6.3.3.1 (monochrome profiles), 6.5 (types of tags).
    """
    tags = {
        b"desc": _tag(b"desc", struct.pack(">I", 5) + b"grey\0" + bytes(78)),
        b"cprt": _tag(b"text", b"none\0"),
        b"wtpt": _tag(b"XYZ ", WHITE),
        b"kTRC": _tag(b"curv", struct.pack(">IH", 1, round(gamma * 256))),
    }
    start, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    kinds = b"mntr" + b"GRAY" + b"XYZ "
    date = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    head = struct.pack(">I4sI", start + len(body), b"lcms", 0x02400000) + kinds + date + b"acsp" + bytes(28) + WHITE
    return head.ljust(128, b"\0") + table + body


def _tag(kind: bytes, body: bytes) -> bytes:
    data = kind + bytes(4) + body
    return data + bytes(-len(data) % 4)

"""Uncompressed TIFF files, tag by tag, for types that Pillow does not write."""

import struct

import numpy as np


def tiff(values: np.ndarray, bits: int, sample_format: int = 1, **tags: int) -> bytes:
    """Return a TIFF with the pixels ``[H, W]`` or ``[H, W, bands]``.

    Args:
        values: Pixels.
        bits: Bits per channel.
        sample_format: 1: unsigned, 2: signed, 3: floating-point.
        tags: ``photometric`` (1: gray, 2: RGB), ``orientation``, and ``extra``, the kind of each further band.
    """
    height, width, bands = (*values.shape, 1)[:3]
    data = values.tobytes()
    entries = {256: width, 257: height, 259: 1, 262: tags.get("photometric", 1), 273: 8, 277: bands, 279: len(data)}
    entries |= {274: tags.get("orientation", 1), 339: sample_format}
    body, offset = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items()}, 8 + len(data)
    lists = {258: [bits] * bands} | ({338: [tags["extra"]] * (bands - 3)} if "extra" in tags else {})
    for tag, numbers in lists.items():
        packed = struct.pack(f"<{len(numbers)}H", *numbers)
        if len(packed) > 4:
            data, offset, packed = data + packed, offset + len(packed), struct.pack("<I", offset)
        body[tag] = struct.pack("<HHI", tag, 3, len(numbers)) + packed.ljust(4, b"\0")
    directory = struct.pack("<H", len(body)) + b"".join(body[tag] for tag in sorted(body)) + bytes(4)
    return b"II*\0" + struct.pack("<I", len(data) + 8) + data + directory

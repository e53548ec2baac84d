"""Read image files of all common formats as RGB ``uint8``, or raise an `ImageError` that names the problem."""

import contextlib
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from .bit_depth import ReadOptions, gray_levels, scale_to_8_bits

NO_FORMAT = "unknown format, or damaged header"

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_WITH_ALPHA = (4, 6)  # types of color
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_HEAD = 2048  # bytes that contain the size of nearly every JPEG without camera metadata
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG segments that hold the size
_UNCLEAR = (0xE1, 0xFF)  # camera metadata, which may hold an orientation; fill bytes
# TIFF's tags
_WIDTH, _HEIGHT, _BITS, _SUBFILE, _PHOTOMETRIC, _SAMPLES, _EXTRA = 256, 257, 258, 254, 262, 277, 338
_COLORS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}  # bands of each value of _PHOTOMETRIC
_ALPHA = (1, 2)  # values of _EXTRA
_TIFF_STARTS = (b"II*\0", b"MM\0*")
_REDUCED_OR_MASK = 0b101  # bits of TIFF's tag _SUBFILE: a page that is a thumbnail or a mask of another
_AS_IT_IS = ReadOptions()
_ORIENTATION, _FIRST_TRANSPOSED = 0x0112, 5  # EXIF's tag, and the first of its values that swap width and height

_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}


_FOREIGN = {
    (b"<svg", b"<?xml"): "SVG or XML; convert it to PNG",
    (b"<!doctype", b"<html"): "a web page; download the image again",
    (b"version https://git-lfs",): "a pointer of Git LFS; run git lfs pull",
    (b"%pdf",): "PDF; convert it to PNG",
    (b"pk\x03\x04", b"\x1f\x8b", b"7z", b"rar!"): "an archive; unpack it",
}


class ImageError(ValueError):
    """An image file that cannot be read.

    Attributes:
        path: The file.
        reason: Description of the problem.
        code: The kind of fault: ``unreadable-image``, or ``size-mismatch``: its annotations are for another size.
        option: The argument of `ReadOptions` with which it can be read, such as ``page=0``; empty: there is none.
    """

    def __init__(self, path: str | Path, reason: str, code: str = "unreadable-image", option: str = "") -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason, self.code, self.option = str(path), reason, code, option

    @classmethod
    def size_mismatch(
        cls, path: str | Path, size: tuple[int, ...], what: str, expected: tuple[int, ...]
    ) -> "ImageError":
        """Return the error for an image of another size than `what`, such as ``its annotations are for``.

        Args:
            path: Image file.
            size: Width and height of the image.
            what: The end of the message, before the size.
            expected: Width and height of its annotations or mask.
        """
        message = f"the image is {size[0]}x{size[1]}, but {what} {expected[0]}x{expected[1]}"
        return cls(path, message, "size-mismatch")

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str, str, str]]:
        return type(self), (
            self.path,
            self.reason,
            self.code,
            self.option,
        )  # so that it survives the way from a worker process


def read_image(path: str | Path, short_side: int | None = None, options: ReadOptions = _AS_IT_IS) -> np.ndarray:
    """Read an image file as it is displayed, at reduced size if that suffices.

    Grayscale becomes three equal channels, an alpha channel is dropped, CMYK is converted, and the EXIF orientation is
    applied. A truncated file is rejected, although most decoders would return it with the rest in gray. Images beyond 8
    bits, and files of several pages or frames, are read as `options` says.

    Args:
        path: The image file.
        short_side: Length in pixels that suffices. A JPEG at least twice as large is decoded at a half, a quarter or an
            eighth of its size, which takes a fraction of the time: sides are divided and rounded up, and the short one
            remains at least this long. None: full resolution.
        options: How to scale more than 8 bits, and which page to read.

    Returns:
        RGB image, uint8.

    Shape:
        - Output: ``[H, W, 3]``.

    Raises:
        ImageError: The file is missing, empty, truncated or not an image; or it has several pages or undeclared bands.
        BitDepthError: The image has more than 8 bits, and `options` does not say how to scale them.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(path, error.strerror or str(error)) from error
    if not data:
        raise ImageError(path, "the file is empty")
    if _has_end_marker(data) and _is_plain(data):
        flags = _decoding_flags(path, data, short_side)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if image is not None:
            if data.startswith(_PNG_START) and data[25] in _PNG_WITH_ALPHA:
                _check_content(path, image)
            return image if flags == cv2.IMREAD_COLOR_RGB else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return _read_with_pillow(path, options)


def _is_plain(data: bytes) -> bool:
    """Return whether a JPEG or PNG has one image of 8 bits: no PNG of 16 bits, and none that is animated."""
    return data.startswith(_JPEG_START) or (
        data[24:25] <= b"\x08" and data.find(b"acTL", 0, max(data.find(b"IDAT"), 0)) < 0
    )


def _check_content(path: str | Path, image: np.ndarray) -> None:
    """Check that an image ``[H, W, 3]`` with an alpha channel, which is dropped, has any content without it.

    Raises:
        ImageError: All its pixels have one color, but their transparency differs.
    """
    if (image == image[:1, :1]).all():
        with Image.open(path) as opened:
            alpha = np.asarray(opened.convert("RGBA"))[..., 3]
        if alpha.min() != alpha.max():
            raise ImageError(
                path, "its content is only in the transparency, which is not read; save it on a background"
            )


def _decoding_flags(path: str | Path, data: bytes, short_side: int | None) -> int:
    """Return OpenCV's flags for the smallest size that suffices; reduced sizes are decoded as BGR."""
    if short_side is not None and data.startswith(_JPEG_START):
        shorter = min(_size_from_header(data) or image_size(path))
        for factor, flags in _REDUCED.items():
            if shorter >= factor * short_side:
                return flags
    return cv2.IMREAD_COLOR_RGB


def reduced_sizes(width: int, height: int) -> list[tuple[int, int]]:
    """List the sizes at which `read_image` may decode an image of this size, full size first."""
    return [(width, height), *((-(-width // factor), -(-height // factor)) for factor in _REDUCED)]


def _has_end_marker(data: bytes) -> bool:
    """Return whether this is a JPEG or PNG with its end marker, which the fast decoder reads reliably."""
    if data.startswith(_JPEG_START):
        return data[-2:] == _JPEG_END
    return data.startswith(_PNG_START) and data[-8:] == _PNG_END


def _read_with_pillow(path: str | Path, options: ReadOptions) -> np.ndarray:
    """Decode to ``[H, W, 3]`` with Pillow, which describes errors and supports the rarer formats."""
    try:
        # opened as a file object: from a memory-mapped file, Pillow (13) scrambles the rows of an uncompressed gray
        # TIFF with a transposing orientation
        with Path(path).open("rb") as file, Image.open(file) as opened:
            _select_page(path, opened, options.page)
            _check_bands(path, opened)
            bits, page = bits_per_channel(opened), opened.tell()
            opened.load()
            image = ImageOps.exif_transpose(opened)
            if image.mode[0] in "IF":
                # TIFF's tags say whether levels are signed; Pillow has turned it by itself
                levels = gray_levels(opened if isinstance(opened, TiffImageFile) else image)
            elif bits <= 8:
                pixels = np.array(image.convert("RGB"))
                if image.mode in ("RGBA", "LA", "PA"):
                    _check_content(path, pixels)
                return pixels
            else:
                levels = _deep_colors(path, page, opened.getexif().get(_ORIENTATION, 1))
            # a PGM states its highest value, by which Pillow has scaled it to 16 bits
            scale = "full" if opened.format == "PPM" and image.mode != "F" else options.scale_16bit
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error …
        raise _unreadable(path, error) from error
    scaled = scale_to_8_bits(levels, scale, bits, str(path))
    return scaled if scaled.ndim == 3 else np.repeat(scaled[..., None], 3, axis=2)


def _select_page(path: str | Path, opened: Image.Image, page: int | None) -> None:
    """Go to the page or frame to read.

    Raises:
        ImageError: There are several, and `page` is None; or there is none with this number.
    """
    count = getattr(opened, "n_frames", 1)
    if count == 1 and not page:
        return
    if opened.format == "MPO":  # a photo; what follows it are previews and depth maps
        return
    pages = list(range(count))
    if isinstance(opened, TiffImageFile):
        pages = [number for number in pages if not _subfile_type(opened, number) & _REDUCED_OR_MASK] or pages
    kind = "pages" if isinstance(opened, TiffImageFile) else "frames"
    if page is None and len(pages) > 1:
        reason = f"must be a single image, got {len(pages)} {kind}; set page: 0 to read the first of them"
        raise ImageError(path, reason, option="page=0")
    if page is not None and page >= len(pages):
        raise ImageError(
            path, f"has {len(pages)} {kind[:-1] if len(pages) == 1 else kind}, counted from 0, got page: {page}"
        )
    opened.seek(pages[page or 0])


def _subfile_type(opened: TiffImageFile, page: int) -> int:
    opened.seek(page)
    return int(opened.tag_v2.get(_SUBFILE, 0))


def _check_bands(path: str | Path, opened: Image.Image) -> None:
    """Check that each band of a TIFF is a color or transparency.

    Raises:
        ImageError: Some are neither.
    """
    tags: Any = getattr(opened, "tag_v2", {})
    bands, colors = tags.get(_SAMPLES, 1), _COLORS.get(tags.get(_PHOTOMETRIC, -1), 0)
    extra = tags.get(_EXTRA, ())
    alphas = sum(kind in _ALPHA for kind in (extra if isinstance(extra, tuple) else (extra,)))
    if colors and bands != colors + alphas:
        raise ImageError(path, f"has {bands} bands; save the one or the three to be read as an image")


def bits_per_channel(opened: Image.Image) -> int:
    """Return the bits of a channel as the file stores them, which Pillow does not tell for colors."""
    if isinstance(opened, TiffImageFile):
        return max(opened.tag_v2.get(_BITS, (1,)))
    if opened.format == "PNG":
        source: Any = opened
        file = source.fp
        position = file.tell()
        file.seek(24)
        bits = file.read(1)[0]
        file.seek(position)  # where Pillow continues to read
        return int(bits)
    return 32 if opened.mode == "F" else 16 if opened.mode[0] == "I" else 8


def _deep_colors(path: str | Path, page: int, orientation: int) -> np.ndarray:
    """Decode 16-bit colors, which Pillow truncates to 8 bits: ``[H, W, 3]``, of the file's type."""
    data = np.frombuffer(Path(path).read_bytes(), np.uint8)
    if page == 0:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    else:
        image = next(iter(cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED, range=(page, page + 1))[1]), None)
    if image is None or image.ndim != 3 or image.dtype == np.uint8:
        raise ImageError(path, "16-bit colors in a form that is not supported; save the image as PNG")
    colors = image[..., 2::-1]
    return _turned(colors, orientation) if data[:8].tobytes() == _PNG_START else colors  # a TIFF is turned already


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array ``[H, W, 3]`` as an EXIF orientation says."""
    image = image.swapaxes(0, 1) if orientation >= _FIRST_TRANSPOSED else image
    image = image[::-1] if orientation in (3, 4, 7, 8) else image
    return image[:, ::-1] if orientation in (2, 3, 6, 7) else image


def _unreadable(path: str | Path, error: Exception) -> ImageError:
    """Wrap Pillow's error; for an unknown format, its message names a Python object and not the file."""
    if isinstance(error, UnidentifiedImageError):
        return ImageError(path, f"not a readable image ({foreign_format(path) or NO_FORMAT})")
    return ImageError(path, f"not a readable image ({str(error).strip() or type(error).__name__})")


def foreign_format(path: str | Path) -> str:
    """Return the format of a file that is not an image, from its first bytes; empty: unknown."""
    with Path(path).open("rb") as file:
        head = file.read(256)
        if head.startswith(_TIFF_STARTS):
            with contextlib.suppress(Exception):  # it may be damaged
                directory: Any = ImageFileDirectory_v2(head[:8])
                file.seek(directory.next)
                directory.load(file)
                if (bands := int(directory.get(_SAMPLES, 1))) not in (1, 3, 4):
                    return f"a TIFF of {bands} bands; save the one or the three to be read as an image"
            return ""
    if head[4:8] == b"ftyp":
        kind = "HEIC" if head[8:11] in (b"hei", b"hev", b"mif", b"msf") else "AVIF" if head[8:11] == b"avi" else "video"
        return f"its content is {kind}; convert it to JPEG or PNG"
    for starts, kind in _FOREIGN.items():
        if head.lstrip().lower().startswith(starts):
            return f"its content is {kind}"
    return "its content is DICOM; convert it to PNG" if head[128:132] == b"DICM" else ""


def orientation_of(path: str | Path) -> int:
    """Return the EXIF orientation of an image, 1 (upright) to 8; 1 if it has none or cannot be read."""
    try:
        with Image.open(path) as opened:
            return int(opened.getexif().get(_ORIENTATION, 1) or 1)
    except Exception:  # as in _read_with_pillow; reading the image itself reports it
        return 1


def image_size(path: str | Path) -> tuple[int, int]:
    """Return width and height of the image that `read_image` returns, from the file's first bytes if these suffice.

    Raises:
        ImageError: The file is missing, empty or not an image.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a hundred thousand times
            head = file.read(_HEAD)
    except OSError as error:
        raise ImageError(path, error.strerror or str(error)) from error
    if (size := _size_from_header(head)) is not None:
        return size
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            if isinstance(opened, TiffImageFile):  # whose size Pillow may have transposed already
                width, height = opened.tag_v2[_WIDTH], opened.tag_v2[_HEIGHT]
            transposed = opened.getexif().get(_ORIENTATION, 1) >= _FIRST_TRANSPOSED
            return (height, width) if transposed else (width, height)
    except Exception as error:  # as in _read_with_pillow
        raise _unreadable(path, error) from error


def _size_from_header(head: bytes) -> tuple[int, int] | None:
    """Return the size from the header of a JPEG or PNG; None if it is not there, or the orientation may change it."""
    if head.startswith(_PNG_START):
        return None if len(head) < 24 or b"eXIf" in head else struct.unpack(">II", head[16:24])
    if not head.startswith(_JPEG_START):
        return None
    offset = 2  # of the next JPEG segment
    while offset + 9 <= len(head) and head[offset] == 0xFF and head[offset + 1] not in _UNCLEAR:
        if head[offset + 1] in _FRAMES:
            height, width = struct.unpack(">HH", head[offset + 5 : offset + 9])
            return (width, height) if height else None
        offset += 2 + int.from_bytes(head[offset + 2 : offset + 4])
    return None

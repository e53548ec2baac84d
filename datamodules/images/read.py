"""Read image files of all common formats as RGB ``uint8``, or raise an `ImageError` that names the problem."""

import glob
import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif", ".jp2")

NO_FORMAT = "unknown format, or damaged header"

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_HEAD = 2048  # bytes that contain the size of nearly every JPEG without camera metadata
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG segments that hold the size
_UNCLEAR = (0xE1, 0xFF)  # camera metadata, which may hold an orientation; fill bytes
_WIDTH, _HEIGHT = 256, 257  # TIFF's tags
_ORIENTATION, _FIRST_TRANSPOSED = 0x0112, 5  # EXIF's tag, and the first of its values that swap width and height

_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}


class ImageError(ValueError):
    """An image file that cannot be read.

    Attributes:
        path: The file.
        reason: Description of the problem.
        code: The kind of fault: ``unreadable-image``, or ``size-mismatch``: its annotations are for another size.
    """

    def __init__(self, path: str | Path, reason: str, code: str = "unreadable-image") -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason, self.code = str(path), reason, code

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

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str, str]]:
        return type(self), (self.path, self.reason, self.code)  # so that it survives the way from a worker process


def read_image(path: str | Path, short_side: int | None = None) -> np.ndarray:
    """Read an image file as it is displayed, at reduced size if that suffices.

    Grayscale becomes three equal channels, 16 bits are scaled to 8, an alpha channel is dropped, CMYK is converted, and
    the EXIF orientation is applied. A truncated file is rejected, although most decoders would return it with the rest
    in gray.

    Args:
        path: The image file.
        short_side: Length in pixels that suffices. A JPEG at least twice as large is decoded at a half, a quarter or an
            eighth of its size, which takes a fraction of the time: sides are divided and rounded up, and the short one
            remains at least this long. None: full resolution.

    Returns:
        RGB image, uint8.

    Shape:
        - Output: ``[H, W, 3]``.

    Raises:
        ImageError: The file is missing, empty, truncated or not an image.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(path, error.strerror or str(error)) from error
    if not data:
        raise ImageError(path, "the file is empty")
    if _has_end_marker(data):
        flags = _decoding_flags(path, data, short_side)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if image is not None:
            return image if flags == cv2.IMREAD_COLOR_RGB else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return _read_with_pillow(path)


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


def _read_with_pillow(path: str | Path) -> np.ndarray:
    """Decode to ``[H, W, 3]`` with Pillow, which describes errors and supports the rarer formats."""
    try:
        # opened as a file object: from a memory-mapped file, Pillow (13) scrambles the rows of an uncompressed gray
        # TIFF with a transposing orientation
        with Path(path).open("rb") as file, Image.open(file) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
            if image.mode in ("I;16", "I;16B", "I;16L", "I"):  # Pillow's own conversion clips at 255
                gray = np.asarray(image).astype(np.int64)
                return np.repeat((gray.clip(0, 65535) // 257).astype(np.uint8)[..., None], 3, axis=2)
            if image.mode == "F":
                raise ImageError(path, "floating-point pixels have no defined range; save the image with 8 or 16 bits")
            return np.array(image.convert("RGB"))
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error …
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: Exception) -> ImageError:
    """Wrap Pillow's error; for an unknown format, its message names a Python object and not the file."""
    if isinstance(error, UnidentifiedImageError):
        return ImageError(path, f"not a readable image ({NO_FORMAT})")
    return ImageError(path, f"not a readable image ({str(error).strip() or type(error).__name__})")


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


def list_images(folder: str | Path) -> list[Path]:
    """List the image files below a folder, by suffix, sorted; hidden files and folders are skipped."""
    folder = Path(folder)
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def find_images(images: str | Path) -> list[Path]:
    """Find the image files that a file, folder or glob pattern names.

    Args:
        images: A file, a folder (searched recursively) or a glob pattern (``**`` allowed).

    Returns:
        The files, sorted. A single file is returned with any suffix.

    Raises:
        FileNotFoundError: There are none.
    """
    path = Path(images).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        if not (files := list_images(path)):
            raise FileNotFoundError(
                f"images: no image files in the folder {str(path)!r} or below; supported: {', '.join(IMAGE_SUFFIXES)}"
            )
        return files
    matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    files = sorted(Path(match) for match in matches if Path(match).is_file())
    if not files:
        raise FileNotFoundError(f"images: no such file or folder, and no matches as a glob, got {str(images)!r}")
    return files

"""Reading image files: any common file to RGB ``uint8``, or a clear refusal."""

import glob
import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif", ".jp2")

NO_FORMAT = "it is of no known format, or its beginning is damaged"

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_HEAD = 2048  # bytes, of which the size of nearly every JPEG without a camera's notes can be read
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG segments that hold the size
_UNCLEAR = (0xE1, 0xFF)  # a camera's notes, which may say that another side is up; filling
_WIDTH, _HEIGHT = 256, 257  # TIFF's tags
_ORIENTATION, _FIRST_TURNED = 0x0112, 5  # EXIF's tag, and the first of its values that swap width and height

_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}


class ImageError(ValueError):
    """An image file that cannot be read.

    Attributes:
        path: The file.
        reason: What is wrong with it.
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
    """Read an image file as it is meant to be seen, or smaller where that is enough.

    Grayscale becomes three equal channels, 16 bits are scaled to 8, an alpha channel is dropped, CMYK is
    converted, and the EXIF orientation is applied. A file that ends too early is refused, although most
    decoders would return it with its rest in gray.

    Args:
        path: the file.
        short_side: length in pixels that is enough. A JPEG at least twice as large is decoded at a half, a quarter or
            an eighth, which takes a part of the time: sides are divided, rounded up, and the short one stays at least
            this. None: always all pixels.

    Returns:
        RGB, uint8.

    Shape:
        - Output: ``[H, W, 3]``.

    Raises:
        ImageError: when the file is missing, empty, truncated or not an image.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(path, error.strerror or str(error)) from error
    if not data:
        raise ImageError(path, "the file is empty")
    if _ends_properly(data):
        flags = _decoding(path, data, short_side)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if image is not None:
            return image if flags == cv2.IMREAD_COLOR_RGB else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return _read_carefully(path)


def _decoding(path: str | Path, data: bytes, short_side: int | None) -> int:
    """OpenCV's flags for the smallest decoding that is enough; those that make an image smaller give BGR."""
    if short_side is not None and data.startswith(_JPEG_START):
        shorter = min(_size_in(data) or image_size(path))
        for factor, flags in _REDUCED.items():
            if shorter >= factor * short_side:
                return flags
    return cv2.IMREAD_COLOR_RGB


def reduced_sizes(width: int, height: int) -> list[tuple[int, int]]:
    """The sizes that `read_image` may give an image of this one, this one first."""
    return [(width, height), *((-(-width // factor), -(-height // factor)) for factor in _REDUCED)]


def _ends_properly(data: bytes) -> bool:
    """Whether this is a JPEG or PNG with its end marker in place, which the fast decoder may be trusted with."""
    if data.startswith(_JPEG_START):
        return data[-2:] == _JPEG_END
    return data.startswith(_PNG_START) and data[-8:] == _PNG_END


def _read_carefully(path: str | Path) -> np.ndarray:
    """Decode with Pillow, which names what is wrong with a file and knows the rarer formats."""
    try:
        # not by its name: from a mapped file, Pillow (13) puts the rows of an uncompressed gray TIFF that lies on its
        # side in disorder
        with Path(path).open("rb") as file, Image.open(file) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
            if image.mode in ("I;16", "I;16B", "I;16L", "I"):  # Pillow's own conversion clips at 255
                gray = np.asarray(image).astype(np.int64)
                return np.repeat((gray.clip(0, 65535) // 257).astype(np.uint8)[..., None], 3, axis=2)
            if image.mode == "F":
                raise ImageError(path, "floating-point pixels have no fixed range; save the image with 8 or 16 bits")
            return np.array(image.convert("RGB"))
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error …
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: Exception) -> ImageError:
    """Pillow's reason; where it knows no format for a file, it would name its own reader, not the file."""
    if isinstance(error, UnidentifiedImageError):
        return ImageError(path, f"not a readable image ({NO_FORMAT})")
    return ImageError(path, f"not a readable image ({str(error).strip() or type(error).__name__})")


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of the image that `read_image` would give, from the file's first bytes where these suffice.

    Raises:
        ImageError: when the file is missing, empty or not an image.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a hundred thousand times
            head = file.read(_HEAD)
    except OSError as error:
        raise ImageError(path, error.strerror or str(error)) from error
    if (size := _size_in(head)) is not None:
        return size
    try:
        with Image.open(path) as opened:
            tags = getattr(opened, "tag_v2", None)  # of a TIFF, whose size Pillow may give as turned already
            width, height = opened.size if tags is None else (tags[_WIDTH], tags[_HEIGHT])
            turned = opened.getexif().get(_ORIENTATION, 1) >= _FIRST_TURNED
            return (height, width) if turned else (width, height)
    except Exception as error:  # as in _read_carefully
        raise _unreadable(path, error) from error


def _size_in(head: bytes) -> tuple[int, int] | None:
    """The size that the start of a JPEG or PNG says; None where it says none, or may turn the image."""
    if head.startswith(_PNG_START):
        return None if len(head) < 24 or b"eXIf" in head else struct.unpack(">II", head[16:24])
    if not head.startswith(_JPEG_START):
        return None
    place = 2
    while place + 9 <= len(head) and head[place] == 0xFF and head[place + 1] not in _UNCLEAR:
        if head[place + 1] in _FRAMES:
            height, width = struct.unpack(">HH", head[place + 5 : place + 9])
            return (width, height) if height else None
        place += 2 + int.from_bytes(head[place + 2 : place + 4])
    return None


def list_images(folder: str | Path) -> list[Path]:
    """Every image file below a folder, by suffix, sorted; hidden files and folders are passed over."""
    folder = Path(folder)
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def find_images(where: str | Path) -> list[Path]:
    """The image files that a file, folder or glob pattern names.

    Args:
        where: a file, a folder (searched through all levels) or a glob pattern (``**`` allowed).

    Returns:
        The files, sorted. A single file is returned whatever its suffix.

    Raises:
        FileNotFoundError: when nothing is found.
    """
    path = Path(where).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = list_images(path)
        if not found:
            raise FileNotFoundError(
                f"no images in the folder {str(path)!r}: looked through all levels for {', '.join(IMAGE_SUFFIXES)}"
            )
        return found
    pattern = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    matches = sorted(Path(match) for match in pattern if Path(match).is_file())
    if not matches:
        raise FileNotFoundError(f"no image at {str(where)!r}: no such file or folder, and as a glob it matches nothing")
    return matches

"""Text files of data sets: their encoding, which is read or named as the cause, and numbers written as text."""

import codecs
import re
from pathlib import Path

from .annotation_errors import DataError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16's mark, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in the encoding that its byte order mark states; line ends are kept.

    Raises:
        DataError: It has another encoding; the message has the line, and the encoding that it is likely in.
    """
    data = path.read_bytes()
    return decode(path, data, marked_encoding(data) or "utf-8")


def marked_encoding(data: bytes) -> str | None:
    """Return the encoding that a byte order mark states; None: there is no mark."""
    return next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)


def decode(path: Path, data: bytes, encoding: str, stated_by: str = "") -> str:
    """Decode the content of a text file.

    Args:
        path: The file, for the message.
        data: Its content.
        encoding: Its encoding.
        stated_by: What states this encoding, for the message.

    Raises:
        DataError: It has another encoding.
    """
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        name = encoding.upper().replace("-SIG", "")
        raise DataError(
            f"{path}, line {line}: must be {name}{stated_by}, got the byte 0x{data[error.start]:02x}; "
            f"it is likely in {likely_encoding(data)}: save it as UTF-8"
        ) from error


def likely_encoding(data: bytes) -> str:
    """Name the encoding that text other than UTF-8 is likely in.

    Western text has single bytes above 127 between letters; text of East Asia has them in pairs.

    >>> likely_encoding("caf\\u00e9".encode("cp1252")), likely_encoding("\\u732b\\u548c\\u72d7".encode("gbk"))
    ('Windows-1252 (Latin-1)', 'GBK, Big5 or Shift JIS')
    """
    if b"\0" in data:
        return "UTF-16"
    runs = re.findall(rb"[\x80-\xff]+", data)
    single = sum(len(run) == 1 for run in runs)
    return "Windows-1252 (Latin-1)" if 2 * single > len(runs) else "GBK, Big5 or Shift JIS"


def parse_decimal(text: str) -> float:
    """Return a number as it is written in a file; unlike in Python, digits must not be grouped by ``_``.

    Raises:
        ValueError: It is not a number.
    """
    if "_" in text:
        raise ValueError(f"must be a number, got {text!r}")
    return float(text)

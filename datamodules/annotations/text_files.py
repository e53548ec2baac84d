"""Text files of data sets: their encoding, which is read or named as the cause, and numbers written as text."""

import codecs
import functools
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

_WESTERN, _EASTERN = "Windows-1252 (Latin-1)", "GBK, Big5 or Shift JIS"


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
    """Name the encoding that text other than UTF-8 is likely in, or all that are.

    Western text has its bytes above 127 as letters, mostly single ones; text of East Asia has them in pairs.

    >>> likely_encoding("caf\\u00e9".encode("cp1252")), likely_encoding("\\u732b\\u548c\\u72d7".encode("gbk"))
    ('Windows-1252 (Latin-1)', 'GBK, Big5 or Shift JIS')
    >>> likely_encoding("Gr\\u00f6\\u00dfe".encode("cp1252"))
    'Windows-1252 (Latin-1), or GBK, Big5 or Shift JIS'
    """
    if b"\0" in data:
        return "UTF-16"
    runs = re.findall(rb"[\x80-\xff]+", data)
    mostly_single = 2 * sum(len(run) == 1 for run in runs) > len(runs)
    letters = all(run.decode("cp1252", "replace").replace("\ufffd", "?").isalpha() for run in runs)
    eastern = any(map(functools.partial(_decodes, data), ("gb18030", "big5", "shift_jis")))
    if letters and (mostly_single or not eastern):
        return _WESTERN
    if not letters and eastern:
        return f"{_EASTERN}, or {_WESTERN}" if mostly_single else _EASTERN
    return f"{_WESTERN}, or {_EASTERN}" if letters else _WESTERN if mostly_single else _EASTERN


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        return bool(data.decode(encoding))
    except UnicodeDecodeError:
        return False


def parse_decimal(text: str) -> float:
    """Return a number as it is written in a file; unlike in Python, digits must not be grouped by ``_``.

    Raises:
        ValueError: It is not a number.
    """
    if "_" in text:
        raise ValueError(f"must be a number, got {text!r}")
    return float(text)

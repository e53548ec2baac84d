"""Encodings of text files: read where they are marked, and named as the cause where they are not."""

import pytest

from striate.datamodules.annotations.annotation_errors import DataError
from striate.datamodules.annotations.text_files import likely_encoding, parse_decimal, read_text

EASTERN = "GBK, Big5 or Shift JIS"
TEXT = "größe\n猫,1\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marked_encodings_are_read(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes(TEXT.encode(encoding))
    assert read_text(tmp_path / "a.txt") == TEXT


@pytest.mark.parametrize(
    "text, encoding, line, named",
    [
        ("a\ncafé\n", "cp1252", 2, "Windows-1252"),
        ("名字\n", "gbk", 1, "GBK"),
        ("犬と猫\n", "shift_jis", 1, "Shift JIS"),
        ("é" * 3 + "\n", "utf-16-le", 1, "UTF-16"),
    ],
)
def test_another_encoding_is_named_with_its_line(tmp_path, text, encoding, line, named):
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=rf"a\.txt, line {line}: must be UTF-8, got the byte 0x.*{named}.*save it"):
        read_text(tmp_path / "a.txt")


def test_likely_encodings():
    assert likely_encoding("naïve café, déjà".encode("latin-1")).startswith("Windows-1252")
    assert likely_encoding("<name>Größe</name>".encode("cp1252")) == f"Windows-1252 (Latin-1), or {EASTERN}"
    assert likely_encoding("<name>“Größe”</name>".encode("cp1252")).endswith("Windows-1252 (Latin-1)")
    assert likely_encoding("<name>大狗</name>".encode("gbk")) == EASTERN
    assert likely_encoding("一隻貓".encode("big5")).startswith("GBK, Big5")


def test_digits_are_not_grouped():
    assert parse_decimal(" -1.5e2 ") == -150
    with pytest.raises(ValueError, match="number.*'1_000'"):
        parse_decimal("1_000")

"""Names of files in other Unicode forms, with backslashes, and in another case."""

import unicodedata

import pytest

from striate.datamodules.images.file_names import FileNames, resolve_names

NFC, NFD = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


@pytest.fixture
def root(tmp_path):
    for name in ("a.jpg", f"{NFC}1.jpg", f"{NFD}2.jpg", f"{NFD}/x/b.jpg", "c/d.JPG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    "name, found",
    [
        ("a.jpg", "a.jpg"),
        (f"{NFC}1.jpg", f"{NFC}1.jpg"),
        (f"{NFD}1.jpg", f"{NFC}1.jpg"),
        (f"{NFC}2.jpg", f"{NFD}2.jpg"),
        (f"{NFC}/x/b.jpg", f"{NFD}/x/b.jpg"),
        (f"{NFC}\\x\\b.jpg", f"{NFD}/x/b.jpg"),
        ("c/../a.jpg", "c/../a.jpg"),
        (NFC, NFD),
        ("b.jpg", None),
        ("c/d.jpg", None),
        (f"{NFC}3/x.jpg", None),
        ("none/x.jpg", None),
    ],
)
def test_names_are_found_in_any_form(root, name, found):
    files = FileNames(root)
    assert files.resolve(name) == found
    assert FileNames().resolve(f"{root}/{name}") == (found and f"{root}/{found}")
    assert resolve_names(root, [name]) == [found or name]


def test_both_forms_may_exist(tmp_path):
    for form in (NFC, NFD):
        (tmp_path / f"{form}.jpg").touch()
    files = FileNames(tmp_path)
    assert files.resolve(f"{NFC}.jpg") == f"{NFC}.jpg" and files.resolve(f"{NFD}.jpg") == f"{NFD}.jpg"


def test_another_case_is_reported_and_not_taken(root):
    files = FileNames(root)
    assert files.hint("c/d.jpg") == "; there is 'd.JPG'"
    assert files.hint("c/e.jpg") == files.hint("none/e.jpg") == ""


def test_a_name_with_a_backslash_may_exist(tmp_path):
    (tmp_path / "a\\b.jpg").touch()
    assert FileNames(tmp_path).resolve("a\\b.jpg") == "a\\b.jpg"


def test_codes_of_addresses_are_decoded_but_lead_nowhere_else(tmp_path):
    for name in ("my photo.png", "50%25.png", "50%.png", "below/a b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = FileNames(tmp_path)
    assert files.resolve("my%20photo.png") == "my photo.png" and files.resolve("below/a%20b.png") == "below/a b.png"
    assert files.resolve("50%25.png") == "50%25.png"  # a name that exists is that file
    assert files.resolve("below%2Fa b.png") is None
    assert FileNames(tmp_path / "below").resolve("%2e%2e/50%.png") is None

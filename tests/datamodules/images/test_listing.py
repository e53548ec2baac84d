"""Listing folders: each image once, and each file that is left out with its reason."""

import pytest
from PIL import Image

from striate.datamodules.annotations.annotation_errors import record_faults
from striate.datamodules.annotations.skipped_files import report_skipped
from striate.datamodules.images.listing import IMAGE_SUFFIXES, list_folder, list_images
from striate.datamodules.images.read import read_image


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_images_and_what_is_left_out(tmp_path):
    touch(tmp_path, "b.JPG", "a/c.jfif", "a/d.webp", "e.heic", "f.mp4", "g", "notes.txt", "a/labels.json")
    touch(tmp_path, ".hidden/x.png", "@eaDir/y.png/z.jpg", "a/__MACOSX/x.png", "._b.jpg", "Thumbs.db", "a/desktop.ini")
    listing = list_folder(tmp_path)
    assert listing.images == ["a/c.jfif", "a/d.webp", "b.JPG"]
    by_reason = {
        reason: [one.path for one in listing.skipped if one.reason == reason]
        for reason in ("format", "text", "system", "link")
    }
    assert by_reason == {
        "format": ["e.heic", "f.mp4", "g"],
        "text": ["a/labels.json", "notes.txt"],
        "system": ["._b.jpg", ".hidden/", "@eaDir/", "Thumbs.db", "a/__MACOSX/", "a/desktop.ini"],
        "link": [],
    }
    assert list_folder(tmp_path, recursive=False).images == ["b.JPG"]


def test_images_are_in_the_order_of_paths(tmp_path):
    touch(tmp_path, "a-b/1.png", "a/2.png", "a/1.png", "b.png")
    assert list_images(tmp_path) == sorted(tmp_path.rglob("*.png"))


def test_links_are_followed_once(tmp_path):
    root = tmp_path / "root"
    touch(root, "real/a.png", "z/b.png")
    touch(tmp_path, "store/c.png")
    (root / "first").symlink_to(root / "real")  # sorts before its target, which keeps its own name
    (root / "more").symlink_to("../store")
    (root / "again").symlink_to("../store")
    (root / "z" / "back").symlink_to("..")
    (tmp_path / "store" / "there").symlink_to(root / "z")
    (root / "gone.png").symlink_to("nowhere.png")
    listing = list_folder(root)
    assert listing.images == ["again/c.png", "gone.png", "real/a.png", "z/b.png"]
    assert [one.path for one in listing.skipped] == ["again/there/", "first/", "more/", "z/back/"]
    assert {one.reason for one in listing.skipped} == {"link"}


def test_what_is_left_out_is_counted_and_named(tmp_path):
    touch(tmp_path, "a.png", "b.heic", "c.heic", "d.mp4", "e.txt", "@eaDir/x")
    listing = list_folder(tmp_path)
    with pytest.warns(UserWarning, match=r"3 of 6 files left out \(2 x .heic, 1 x .mp4; first: .*b.heic\): convert"):
        report_skipped([listing])
    with record_faults() as faults:
        report_skipped([listing])
    assert [(fault.code, list(fault.names)) for fault in faults] == [
        ("unread-file", ["b.heic", "c.heic"]),
        ("unread-file", ["d.mp4"]),
        ("skipped-file", ["@eaDir/"]),
        ("skipped-file", ["e.txt"]),
    ]
    with record_faults() as faults:
        report_skipped([listing], labels_beside=True)
    assert "e.txt" not in [name for fault in faults for name in fault.names]


def test_texts_and_system_files_alone_do_not_warn(tmp_path):
    touch(tmp_path, "a.png", "e.txt", ".x", "Thumbs.db")
    report_skipped([list_folder(tmp_path)])


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_files_with_each_suffix_are_read(tmp_path, suffix):
    Image.init()
    kind = Image.registered_extensions()[suffix]
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {kind}")
    image = Image.new("1" if suffix == ".pbm" else "RGB", (8, 8), 1)
    image.save(tmp_path / f"a{suffix}")
    assert read_image(tmp_path / f"a{suffix}").shape == (8, 8, 3)
    assert list_images(tmp_path) == [tmp_path / f"a{suffix}"]

"""Images beyond 8 bits, of several pages, and of more bands than colors: read as told, or rejected."""

import cv2
import numpy as np
import pytest
from PIL import Image

from striate.datamodules import ImageFolder
from striate.datamodules.images.bit_depth import BitDepthError, ReadOptions, scale_to_8_bits
from striate.datamodules.images.read import ImageError, image_size, read_image
from striate.tests.helpers.fixtures import make_folder, noise, write_image
from striate.tests.helpers.tiff import tiff

RGB16 = np.arange(2 * 3 * 3, dtype=np.uint16).reshape(2, 3, 3) * 3800


def levels(path, scale=None, page=None):
    return read_image(path, options=ReadOptions.of(scale, page))[..., 0].tolist()


def test_scales():
    values = np.arange(1001, dtype=np.uint16)[None] + 5000
    by_percentile = scale_to_8_bits(values, "percentile")[0]
    assert (by_percentile[:11] == 0).all() and by_percentile[11] <= 1 and (by_percentile[998:] == 255).all()
    assert by_percentile[504] == round((504 - 10) / 988 * 255)
    assert scale_to_8_bits(np.array([[65535, 0]], np.uint16), "full").tolist() == [[255, 0]]
    assert scale_to_8_bits(np.array([[4095, 0]], np.uint16), "full", bits=12).tolist() == [[255, 0]]
    assert scale_to_8_bits(np.full((2, 2), 9, np.uint16), "image").tolist() == [[0, 0], [0, 0]]
    assert scale_to_8_bits(np.array([[2**32 - 1, 0, 2**31]], np.uint32), "image").tolist() == [[255, 0, 128]]
    assert scale_to_8_bits(np.array([[-900, -1000, 400, 900]]), (-1000, 400)).tolist() == [[18, 0, 255, 255]]
    assert scale_to_8_bits(np.array([[np.nan, 0.5, 1, np.inf]]), "image").tolist() == [[0, 0, 255, 255]]


@pytest.mark.parametrize(
    "values, bits, kind, found, usual",
    [
        (np.array([[-900, 100]], np.int16), 16, 2, "values of 16 bits from -900 to 100", r"\[-900, 100\], image"),
        (np.array([[8, 3767]], np.uint16), 16, 1, "values of 16 bits from 8 to 3767", r"\[0, 4095\], full, image"),
        (np.array([[0, 2**31]], np.uint32), 32, 1, r"values of 32 bits from 0 to 2.1\S*", r"\[0, 2147483648\], image"),
        (np.array([[0, 0.25]], np.float32), 32, 3, "floating-point values from 0 to 0.25", r"\[0, 1\], image"),
    ],
)
def test_deep_images_without_a_scaling_are_rejected(tmp_path, values, bits, kind, found, usual):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(values, bits, kind))
    with pytest.raises(BitDepthError, match=f"a.tif: scale_16bit must be set.*{found}; set scale_16bit: .*{usual}"):
        read_image(path)
    assert levels(path, "image") == [[0, 255]]
    assert levels(path, [float(values.min()), float(values.max())]) == [[0, 255]]
    if values.dtype != np.uint16:
        with pytest.raises(BitDepthError, match=f"full needs whole numbers of 16 bits, got {found}"):
            read_image(path, options=ReadOptions("full"))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_colors_of_16_bits_keep_their_levels(tmp_path, suffix):
    path = write_image(tmp_path / f"a.{suffix}", RGB16)
    with pytest.raises(BitDepthError, match=r"16 bits from 0 to 64600; set scale_16bit"):
        read_image(path)
    expected = np.rint(RGB16 / 65535 * 255)
    np.testing.assert_array_equal(read_image(path, options=ReadOptions("full")), expected)
    dark = np.rint(np.clip(RGB16 / 4095, 0, 1) * 255)
    np.testing.assert_array_equal(read_image(path, options=ReadOptions((0, 4095))), dark)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_images_are_turned_like_others(tmp_path, orientation):
    gray = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(gray).save(tmp_path / "8.png", exif=exif)
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "16.png", exif=exif)
    colors = np.repeat(gray[..., None], 3, axis=2).astype(np.uint16) * 257
    (tmp_path / "colors.tif").write_bytes(tiff(colors, 16, photometric=2, orientation=orientation))
    (tmp_path / "gray.tif").write_bytes(tiff(gray.astype(np.uint16) * 257, 16, orientation=orientation))
    expected = read_image(tmp_path / "8.png")
    for name in ("16.png", "colors.tif", "gray.tif"):
        np.testing.assert_array_equal(read_image(tmp_path / name, options=ReadOptions("full")), expected, name)
        assert image_size(tmp_path / name) == expected.shape[1::-1]


def test_a_pgm_states_its_highest_value(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 4095\n" + np.array([0, 4095, 1024], ">u2").tobytes())
    assert levels(tmp_path / "a.pgm") == [[0, 255, 64]]


def test_big_endian_tiff(tmp_path):
    values = Image.frombytes("I;16B", (3, 1), np.array([0, 4095, 1024], ">u2").tobytes())
    values.save(tmp_path / "a.tif")
    assert levels(tmp_path / "a.tif", [0, 4095]) == [[0, 255, 64]]


def test_one_bit_and_palettes(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "1.png")
    assert levels(tmp_path / "1.png") == [[255, 0]]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([200, 0, 0, 10, 0, 0])
    palette.save(tmp_path / "p.png", transparency=0)
    assert levels(tmp_path / "p.png") == [[200, 10]]


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_content_in_the_transparency_alone_is_rejected(tmp_path, name):
    image = np.zeros((4, 4, 4), np.uint8)
    image[1:3, 1:3, 3] = 255
    Image.fromarray(image, "RGBA").save(tmp_path / name, lossless=True, exact=True)
    with pytest.raises(ImageError, match="content is only in the transparency"):
        read_image(tmp_path / name)
    image[..., 3] = 255  # an opaque black image is one
    Image.fromarray(image, "RGBA").save(tmp_path / name, lossless=True, exact=True)
    assert not read_image(tmp_path / name).any()


@pytest.mark.parametrize("suffix, kind", [("tif", "pages"), ("gif", "frames"), ("webp", "frames"), ("png", "frames")])
def test_files_of_several_pages(tmp_path, suffix, kind):
    path = tmp_path / f"a.{suffix}"
    pages = [Image.fromarray(np.full((4, 4, 3), level, np.uint8)) for level in (0, 200)]
    pages[0].save(path, save_all=True, append_images=pages[1:], lossless=True)
    with pytest.raises(ImageError, match=f"must be a single image, got 2 {kind}; set page: 0"):
        read_image(path)
    assert [levels(path, page=page)[0][0] for page in (0, 1)] == [0, 200]
    with pytest.raises(ImageError, match=f"has 2 {kind}, counted from 0, got page: 2"):
        read_image(path, options=ReadOptions(page=2))


def test_pages_of_16_bits_and_thumbnails(tmp_path):
    path = tmp_path / "a.tif"
    assert cv2.imwritemulti(str(path), [RGB16, RGB16 // 2])
    np.testing.assert_array_equal(
        read_image(path, options=ReadOptions("full", 1))[..., ::-1], np.rint((RGB16 // 2) / 65535 * 255)
    )
    small = Image.fromarray(noise(2, 2))
    small.encoderinfo = {"tiffinfo": {254: 1}}  # a reduced version of the first page
    Image.fromarray(noise(4, 4)).save(path, save_all=True, append_images=[small])
    np.testing.assert_array_equal(read_image(path), noise(4, 4))


@pytest.mark.parametrize(
    "bands, tags",
    [
        (5, {}),
        (2, {}),
        (5, {"photometric": 2, "extra": 0}),
        (4, {"photometric": 2, "extra": 0}),
        (4, {"photometric": 2}),
    ],
)
def test_bands_that_are_no_colors_are_rejected(tmp_path, bands, tags):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(np.zeros((2, 3, bands), np.uint8), 8, **tags))
    with pytest.raises(ImageError, match=f"a.tif: .*{bands} bands; save the one or the three"):
        read_image(path)


def test_a_fourth_band_may_be_transparency(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(np.full((2, 3, 4), 7, np.uint8), 8, photometric=2, extra=2))
    assert (read_image(path) == 7).all()


@pytest.mark.parametrize(
    "content, found",
    [
        (b"\0\0\0\x18ftypheic" + bytes(300), "its content is HEIC; convert it"),
        (b"\0\0\0\x18ftypisom" + bytes(300), "its content is video"),
        (b"<svg xmlns=''></svg>", "its content is SVG"),
        (b"<!DOCTYPE html><html>", "its content is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "its content is a pointer of Git LFS"),
        (bytes(128) + b"DICM", "its content is DICOM"),
        (b"nothing", "unknown format"),
    ],
)
def test_other_content_is_named(tmp_path, content, found):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=f"a.jpg: not a readable image \\({found}"):
        read_image(tmp_path / "a.jpg")


def test_the_suffix_may_be_wrong(tmp_path):
    image = noise(4, 4)
    write_image(tmp_path / "a.png", image).rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), image)


def test_every_data_module_has_the_options(tmp_path):
    make_folder(tmp_path, 3)
    deep = np.full((4, 4), 4095, np.uint16)
    for path in sorted(tmp_path.rglob("*.png")):
        write_image(path, deep)
    data = ImageFolder(str(tmp_path), val_fraction=0.4, num_workers=0, scale_16bit=[0, 4095], images=str(tmp_path))
    data.setup("fit")
    assert (data.datasets["train"][0]["image"] == 255).all() and (data.open_source("val")[0]["image"] == 255).all()
    assert (next(iter(data.predict_dataloader()))["image"] == 255).all()
    data = ImageFolder(str(tmp_path), val_fraction=0.4, num_workers=0)
    data.setup("fit")
    with pytest.raises(BitDepthError, match="scale_16bit must be set"):
        data.datasets["train"][0]


@pytest.mark.parametrize(
    "options, message",
    [
        (("ful", None), "scale_16bit: .*got 'ful'; did you mean 'full'"),
        (([5, 5], None), r"scale_16bit: .*low < high, got \[5, 5\]"),
        ((None, -1), "page: must be >= 0.*got -1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ReadOptions.of(*options)

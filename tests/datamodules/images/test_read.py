"""Reading images: every format is decoded correctly, or rejected with its path."""

import cv2
import numpy as np
import pytest
from PIL import Image

from striate.datamodules.images.bit_depth import ReadOptions
from striate.datamodules.images.listing import find_images
from striate.datamodules.images.read import ImageError, read_image
from striate.tests.helpers.fixtures import noisy_image, write_image


@pytest.fixture
def gradient():
    """Red grows to the right, green downward, blue is constant: any swap of channels or axes is visible."""
    image = np.zeros((24, 40, 3), np.uint8)
    image[..., 0] = np.arange(40) * 6
    image[..., 1] = np.arange(24)[:, None] * 10
    image[..., 2] = 77
    return image


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_color_files_are_read_as_rgb(tmp_path, gradient, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(gradient).save(path, **({"lossless": True} if suffix == "webp" else {}))
    np.testing.assert_array_equal(read_image(path), gradient)


def test_jpeg_equals_pillow_within_rounding(tmp_path, gradient):
    path = tmp_path / "a.jpg"
    Image.fromarray(gradient).save(path, quality=95)
    reference = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert np.abs(read_image(path).astype(int) - reference).max() <= 3


def test_grayscale_becomes_three_equal_channels(tmp_path, gradient):
    for suffix in ("png", "jpg"):
        path = tmp_path / f"g.{suffix}"
        Image.fromarray(gradient[..., 0]).save(path)
        image = read_image(path)
        assert image.shape == (24, 40, 3)
        assert (image == image[..., :1]).all()
        assert abs(int(image[3, 30, 0]) - 180) <= 3


def test_alpha_is_dropped(tmp_path, gradient):
    path = tmp_path / "a.png"
    alpha = np.full((24, 40, 1), 128, np.uint8)
    Image.fromarray(np.concatenate([gradient, alpha], axis=2), "RGBA").save(path)
    np.testing.assert_array_equal(read_image(path), gradient)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    gray = np.array([[0, 257, 25700, 65535]], np.uint16).repeat(3, axis=0)
    assert cv2.imwrite(str(path), gray)
    image = read_image(path, options=ReadOptions("full"))
    np.testing.assert_array_equal(image[0, :, 0], [0, 1, 100, 255])


def test_cmyk_is_converted(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path, quality=95)  # no cyan: red
    red, green, blue = read_image(path)[8, 8].astype(int)
    assert red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize("orientation, corner", [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_exif_orientation_is_applied(tmp_path, orientation, corner):
    image = np.zeros((32, 48, 3), np.uint8)
    image[:8, :8] = 255  # a white corner, upper left as stored
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(path, exif=exif, quality=95)
    read = read_image(path)
    assert read.shape == ((32, 48, 3) if orientation in (1, 3) else (48, 32, 3))
    assert read[corner].min() > 200


def test_truncated_files_are_rejected_by_path(tmp_path):
    for suffix in ("jpg", "png"):
        whole = write_image(tmp_path / f"whole.{suffix}", noisy_image(0, 1, 128)).read_bytes()
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ImageError, match=rf"cut.{suffix}: not a readable image"):
            read_image(cut)


def test_a_jpeg_with_trailing_bytes_is_read(tmp_path):
    path = write_image(tmp_path / "a.jpg", noisy_image(0, 1))
    path.write_bytes(path.read_bytes() + b"camera maker's note")
    assert read_image(path).shape == (32, 32, 3)


def test_files_that_are_not_images_are_rejected(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"empty.jpg: the file is empty"):
        read_image(tmp_path / "empty.jpg")
    with pytest.raises(ImageError, match=r"text.png: not a readable image \(unknown format"):
        read_image(tmp_path / "text.png")
    with pytest.raises(ImageError, match=r"none.png: No such file"):
        read_image(tmp_path / "none.png")


def test_images_are_found_by_file_folder_and_glob(tmp_path):
    a = write_image(tmp_path / "b" / "a.png", noisy_image(0, 0))
    c = write_image(tmp_path / "c.jpg", noisy_image(0, 0))
    write_image(tmp_path / ".hidden" / "d.png", noisy_image(0, 0))
    (tmp_path / "notes.txt").touch()
    assert find_images(tmp_path) == [a, c]
    assert find_images(c) == [c]
    assert find_images(tmp_path / "**" / "*.png") == [a]
    with pytest.raises(FileNotFoundError, match="images: .*got '.*nowhere'"):
        find_images(tmp_path / "nowhere")
    (tmp_path / "void").mkdir()
    with pytest.raises(FileNotFoundError, match="images: .*folder '.*void'"):
        find_images(tmp_path / "void")

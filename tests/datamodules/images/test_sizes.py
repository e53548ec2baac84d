"""Image sizes read from file headers."""

import pytest
from PIL import Image

from striate.datamodules.images.read import image_size, read_image
from striate.datamodules.images.sizes import image_sizes
from striate.tests.helpers.fixtures import noise, write_image


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_sizes_are_read_from_headers(tmp_path, suffix):
    Image.fromarray(noise(33, 20)).save(tmp_path / f"a.{suffix}")
    assert image_size(tmp_path / f"a.{suffix}") == (33, 20)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_sizes_are_those_of_the_displayed_images(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(noise(40, 20)).save(tmp_path / f"a.{suffix}", exif=exif)
    (tmp_path / "b.jpg").write_bytes(b"no image")
    sizes = image_sizes(tmp_path / name for name in (f"a.{suffix}", "b.jpg", "gone.jpg"))
    expected = (40, 20) if orientation < 5 else (20, 40)
    assert sizes.tolist() == [list(expected), [0, 0], [0, 0]]
    assert read_image(tmp_path / f"a.{suffix}").shape[1::-1] == expected


def test_sizes_of_many_files_stay_in_order(tmp_path):
    for width in range(1, 9):
        write_image(tmp_path / f"{width}.png", noise(width, 2))
    paths = [tmp_path / f"{1 + n % 8}.png" for n in range(1000)]
    assert image_sizes(paths).tolist() == [[1 + n % 8, 2] for n in range(1000)]
    assert image_sizes([]).shape == (0, 2)

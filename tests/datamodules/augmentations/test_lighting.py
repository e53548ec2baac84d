"""PCA lighting against numpy's covariance and eigenvectors, and against the documented distribution."""

import albumentations as A
import numpy as np
import pytest

from striate.datamodules.augmentations.lighting import (
    IMAGENET_EIGENVALUES,
    IMAGENET_EIGENVECTORS,
    PCALighting,
    RGBCovariance,
    lighting_offset,
    rgb_pca,
)


def photographs(count: int = 5) -> list[np.ndarray]:
    """Correlated RGB noise of several sizes."""
    rng = np.random.default_rng(0)
    mixing = np.array([[50, 20, 5], [48, -3, -9], [45, -18, 6]])
    return [(rng.standard_normal((10 + i, 12, 3)) @ mixing.T + 120).clip(0, 255).astype(np.uint8) for i in range(count)]


def test_covariance_against_numpy():
    stats = RGBCovariance()
    for image in photographs():
        stats.update(image)
    pixels = np.concatenate([image.reshape(-1, 3) for image in photographs()]) / 255
    assert stats.count == len(pixels)
    np.testing.assert_allclose(stats.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(stats.covariance, np.cov(pixels.T, bias=True), rtol=1e-10)


def test_eigenvectors_against_numpy():
    eigenvalues, eigenvectors = rgb_pca(photographs())
    pixels = np.concatenate([image.reshape(-1, 3) for image in photographs()]) / 255
    # singular values of the centered pixels, independent of eigh of the covariance
    _, singular, axes = np.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
    np.testing.assert_allclose(eigenvalues, singular**2 / len(pixels), rtol=1e-9)
    assert list(eigenvalues) == sorted(eigenvalues, reverse=True)
    columns = np.array(eigenvectors).T
    for column, axis in zip(columns, axes, strict=True):
        assert abs(column @ axis) == pytest.approx(1, abs=1e-9)
        assert column[np.abs(column).argmax()] > 0


def test_known_axes():
    # red and green vary together, blue independently and less: the axes are (1, 1, 0) / sqrt 2 and (0, 0, 1)
    image = np.array([[0, 0, 50], [255, 255, 50], [0, 0, 101], [255, 255, 101]], dtype=np.uint8)[None]
    eigenvalues, eigenvectors = rgb_pca([image])
    np.testing.assert_allclose(eigenvalues, [0.5, 0.01, 0], atol=1e-12)
    np.testing.assert_allclose(np.array(eigenvectors)[:, 0], [np.sqrt(0.5), np.sqrt(0.5), 0], atol=1e-12)
    np.testing.assert_allclose(np.array(eigenvectors)[:, 1], [0, 0, 1], atol=1e-12)


def test_merged_shards_equal_one_pass_exactly():
    whole, left, right = RGBCovariance(), RGBCovariance(), RGBCovariance()
    for i, image in enumerate(photographs()):
        whole.update(image)
        (left if i % 2 else right).update(image)
    left.merge(right)
    assert left.count == whole.count
    assert (left.covariance == whole.covariance).all()
    assert (left.mean == whole.mean).all()


def test_statistics_name_bad_input():
    stats = RGBCovariance()
    with pytest.raises(ValueError, match="no pixels counted"):
        _ = stats.covariance
    with pytest.raises(TypeError, match="float64"):
        stats.update(np.zeros((2, 2, 3)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"image: .*\[3, 4, 4\]"):
        stats.update(np.zeros((3, 4, 4), dtype=np.uint8))


def test_imagenet_constants_are_a_plausible_pca():
    vectors = np.array(IMAGENET_EIGENVECTORS)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=2e-4)
    # brightness is by far the largest axis: equal parts of R, G and B
    np.testing.assert_allclose(np.abs(vectors[:, 0]), np.sqrt(1 / 3), atol=0.011)
    covariance = vectors @ np.diag(IMAGENET_EIGENVALUES) @ vectors.T
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), 0.283, atol=0.02)  # pixel spread of [0, 1] photographs


def test_offset_by_hand():
    vectors = ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, -1.0))
    # green gets a1 l1, red a2 l2, blue -a3 l3
    np.testing.assert_allclose(lighting_offset([1, 2, 3], [0.2, 0.1, 0.05], vectors), [0.2, 0.2, -0.15])


def test_offset_is_one_for_all_pixels_of_an_image_and_rounded():
    image = np.random.default_rng(1).integers(100, 150, (16, 20, 3), dtype=np.uint8)
    transform = PCALighting(sigma=0.5)
    transform.set_random_seed(4)
    lit = transform(image=image)["image"]
    difference = lit.astype(int) - image
    assert lit.dtype == np.uint8
    assert (difference == difference[0, 0]).all()
    expected = transform.get_applied_params()["offset"] * 255
    assert difference[0, 0].tolist() == [round(x) for x in expected]
    assert (difference != 0).any()


def test_uint8_and_float_agree():
    image = np.random.default_rng(1).integers(100, 150, (4, 4, 3), dtype=np.uint8)
    transform = PCALighting(sigma=0.5)
    lit = transform.apply(image, offset=np.array([0.1, -0.1, 0.05]))
    smooth = transform.apply(image.astype(np.float32) / 255, offset=np.array([0.1, -0.1, 0.05]))
    np.testing.assert_allclose(lit / 255, smooth, atol=0.51 / 255)


def test_offsets_of_uint8_are_in_steps_of_255_by_hand():
    # 255 * 0.6 = 153, 255 * 0.8 = 204; in steps of 256 each would come to one more
    lit = PCALighting().apply(np.array([[[10, 20, 200]]], dtype=np.uint8), offset=np.array([0.6, 0.8, -0.6]))
    assert lit.tolist() == [[[163, 224, 47]]]


def test_clips_instead_of_wrapping():
    image = np.array([[[0, 128, 255]]], dtype=np.uint8)
    transform = PCALighting()
    assert transform.apply(image, offset=np.array([-0.2, 0, 0.2])).tolist() == [[[0, 128, 255]]]
    assert transform.apply(image, offset=np.array([0.2, 0.2, -0.2])).tolist() == [[[51, 179, 204]]]


def test_variance_is_as_documented():
    transform = PCALighting(sigma=0.1)
    transform.set_random_seed(0)
    gray = np.full((1, 1, 3), 0.5, dtype=np.float32)
    offsets = np.array([transform(image=gray)["image"][0, 0] - 0.5 for _ in range(4000)])
    vectors, values = np.array(IMAGENET_EIGENVECTORS), np.array(IMAGENET_EIGENVALUES)
    expected = vectors @ np.diag((0.1 * values) ** 2) @ vectors.T  # eigenvalues, not their square roots
    np.testing.assert_allclose(offsets.mean(0), 0, atol=6e-4)
    np.testing.assert_allclose(np.cov(offsets.T), expected, atol=0.06 * expected.max())
    assert 255 * offsets.std(0).mean() == pytest.approx(3.2, abs=0.2)  # gray levels


def test_each_call_draws_anew_and_a_pipeline_is_reproducible():
    image = np.full((4, 4, 3), 128, dtype=np.uint8)

    def run() -> list[list[int]]:
        pipeline = A.Compose([PCALighting(sigma=1.0)], seed=7)
        return [pipeline(image=image)["image"][0, 0].tolist() for _ in range(4)]

    first = run()
    assert first == run()
    assert len({tuple(pixel) for pixel in first}) > 1


def test_masks_do_not_change():
    image, mask = np.full((4, 4, 3), 128, dtype=np.uint8), np.arange(16, dtype=np.uint8).reshape(4, 4)
    out = A.Compose([PCALighting(sigma=1.0)], seed=1)(image=image, mask=mask)
    assert (out["mask"] == mask).all()


def test_serializes():
    pipeline = A.Compose([PCALighting(eigenvalues=(0.3, 0.02, 0.01), sigma=0.2)])
    described = A.to_dict(pipeline)["transform"]["transforms"][0]
    assert described["sigma"] == 0.2
    assert tuple(described["eigenvalues"]) == (0.3, 0.02, 0.01)


def test_bad_arguments_and_images_are_named():
    with pytest.raises(ValueError, match=r"sigma: .*got -0\.1"):
        PCALighting(sigma=-0.1)
    with pytest.raises(ValueError, match="eigenvalues: .*got .14143"):
        PCALighting(eigenvalues=(14143.0, 1222.0, 293.0))
    with pytest.raises(ValueError, match=r"image: .*\[4, 4, 1\]"):
        PCALighting()(image=np.zeros((4, 4, 1), dtype=np.uint8))
    with pytest.raises(TypeError, match="float64"):
        PCALighting().apply(np.zeros((4, 4, 3)), offset=np.zeros(3))


def test_pca_of_a_data_modules_training_images() -> None:
    from striate.datamodules import DigitScenes
    from striate.datamodules.augmentations.lighting import training_pca

    data = DigitScenes(image_size=32, train_size=6, val_size=2, num_workers=0)
    values, vectors = training_pca(data)
    source = data.datasets["train"].source
    pixels = np.concatenate([source[i]["image"].reshape(-1, 3) for i in range(6)]) / 255
    reference, axes = np.linalg.eigh(np.cov(pixels.T, bias=True))
    np.testing.assert_allclose(values, reference[::-1], rtol=1e-6)
    np.testing.assert_allclose(np.abs(vectors), np.abs(axes[:, ::-1]), atol=1e-6)
    some, _ = training_pca(data, limit=2)  # the first and the last
    ends = np.concatenate([source[i]["image"].reshape(-1, 3) for i in (0, 5)]) / 255
    np.testing.assert_allclose(some, np.linalg.eigvalsh(np.cov(ends.T, bias=True))[::-1], rtol=1e-6)

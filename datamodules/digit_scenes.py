"""DigitScenes: the data set that is always there. Real digits on real photographs, composed on the fly."""

from typing import Any

from .base import Transforms, VisionDataModule
from .scenes import CLASS_NAMES, SceneComposer


class DigitScenes(VisionDataModule):
    """Handwritten digits on photographs, for one task after the other (DESIGN, "Data that is always there").

    The digits are UCI's (scikit-learn's ``load_digits``, 1,797), the photographs scikit-learn's
    ``load_sample_images``; each scene is composed of them, deterministically in (seed, index), and the three splits
    share neither a digit nor a region of a photograph. Nothing is downloaded.

    Args:
        image_size: side of the square scenes, pixels.
        train_size, val_size, test_size: number of scenes.
        scale: smallest and largest height of a digit, as a fraction of the scene's side.
        batch_size, eval_batch_size, num_workers, train_transform, val_transform, seed, images, strict: see
            `VisionDataModule`.

    Batches are `ClassificationBatch`: one digit a scene, labels 0 to 9.
    """

    def __init__(
        self,
        image_size: int = 64,
        train_size: int = 8000,
        val_size: int = 1000,
        test_size: int = 1000,
        scale: tuple[float, float] = (0.4, 0.8),
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        num_workers: int | None = None,
        train_transform: Transforms | None = None,
        val_transform: Transforms | None = None,
        seed: int = 0,
        images: str | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, train_transform, val_transform, seed, images, strict)
        self.image_size, self.scale = image_size, scale
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        for split, size in self.sizes.items():
            if size < 1:
                raise ValueError(f"data.init_args.{split}_size: {size} is not a number of scenes; give 1 or more")

    @property
    def class_names(self) -> list[str]:
        """The ten digits."""
        return list(CLASS_NAMES)

    def make_source(self, split: str) -> "SceneSource":
        """The scenes of a split."""
        composer = SceneComposer(
            split, size=self.image_size, min_scale=self.scale[0], max_scale=self.scale[1], seed=self.seed
        )
        composer(0)  # reads digits and photographs here, once, for all workers to share
        return SceneSource(composer, self.sizes[split])


class SceneSource:
    """The first `size` scenes of a composer, seen as images with one label."""

    def __init__(self, composer: SceneComposer, size: int) -> None:
        self.composer, self.size = composer, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        scene = self.composer(index)
        return {"image": scene.image, "label": int(scene.labels[0])}

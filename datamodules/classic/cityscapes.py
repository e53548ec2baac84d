"""Cityscapes: semantic segmentation of street scenes."""

from pathlib import Path
from typing import Literal, get_args

from ..annotations.annotation_errors import AbsentSplitError
from ..annotations.argument_checks import check_choice, did_you_mean
from ..annotations.dataset_layout import check_files_exist, encode_paths, image_names, layout_error, subfolders
from ..annotations.mask_files import MaskedFiles, class_lookup
from ..base import LoaderOptions, Unpack, VisionDataModule
from ..batches import IGNORE_INDEX

Annotations = Literal["fine", "coarse"]

# value of each class in *_labelIds.png; the position in this table is its train id
# fmt: off
_CLASSES = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26,
    "truck": 27, "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}
# fmt: on
# not evaluated: unlabeled, ego vehicle, borders, out of roi, static, dynamic, ground; parking, rail track; guard rail,
# bridge, tunnel; pole group; caravan, trailer
_VOID = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)

_PARTS = ("train", "train_extra", "val")
_SUFFIX = "_leftImg8bit.png"


class Cityscapes(VisionDataModule):
    """Street scenes of fifty cities, 2048 x 1024 pixels, with the nineteen classes that are evaluated.

    Expected layout::

        ROOT/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png …      (leftImg8bit_trainvaltest.zip)
        ROOT/gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png …       (gtFine_trainvaltest.zip)
        ROOT/leftImg8bit/val/…, ROOT/gtFine/val/…
        ROOT/leftImg8bit/train_extra/…, ROOT/gtCoarse/train_extra/…               (for annotations: coarse)

    The publisher's label ids (0 to 33) become train ids (0 to 18); other ids are ignored. `label_ids` maps classes back
    for submissions. Validation and test both use the fine annotations of ``val`` (500 images), on which papers report:
    the masks of the test set are not public, and those distributed with it are empty.

    Args:
        root: Folder that contains ``leftImg8bit``.
        annotations: Annotations for training. ``fine``: 2,975 images. ``coarse``: coarse polygons, drawn in minutes,
            for the same images and the 19,998 of ``train_extra``.
        train: Parts to train on, among ``train``, ``train_extra`` (coarse only) and ``val``. None: all training parts
            with such annotations.
        train_ids: Whether to read ``*_labelTrainIds.png``, which Cityscapes' scripts create, instead of
            ``*_labelIds.png``.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Folders or masks are missing; the message shows the expected layout.
        ValueError: An image has another kind of name, or a mask has a value that is not a label id.

    Batches are `SemanticSegmentationBatch`.

    Reference: Cordts et al., "The Cityscapes dataset for semantic urban scene understanding", CVPR 2016.
    """

    def __init__(
        self,
        root: str,
        annotations: Annotations = "fine",
        train: list[str] | None = None,
        train_ids: bool = False,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        check_choice("annotations", annotations, get_args(Annotations))
        choices = [part for part in _PARTS if annotations == "coarse" or part != "train_extra"]
        self.parts = train or [part for part in choices if part != "val"]
        if unknown := [part for part in self.parts if part not in choices]:
            raise ValueError(
                f"train: parts with {annotations} annotations are {', '.join(choices)}, got {unknown[0]!r}"
                f"{did_you_mean(unknown[0], choices)}"
            )
        self.root, self.annotations, self.train_ids = Path(root).expanduser(), annotations, train_ids
        ids = self.label_ids
        classes = None if train_ids else {ids[k]: k for k in range(len(ids))} | dict.fromkeys(_VOID, IGNORE_INDEX)
        self.lookup = class_lookup(classes, len(ids))

    @property
    def class_names(self) -> list[str]:
        """Names of the nineteen classes in the order of their train ids."""
        return list(_CLASSES)

    @property
    def label_ids(self) -> list[int]:
        """Publisher's label id of each class, for the evaluation server."""
        return list(_CLASSES.values())

    def make_source(self, split: str) -> MaskedFiles:
        """Return the images and masks of a split; ``test`` is ``val``."""
        parts, quality = (self.parts, self.annotations) if split == "train" else (["val"], "fine")
        pairs = [pair for part in parts for pair in self._pairs(part, "gt" + quality.capitalize())]
        images, masks = (list(column) for column in zip(*pairs, strict=True))
        kind = "masks"
        if self.train_ids:
            kind += " (train ids; create them with cityscapesscripts' createTrainIdLabelImgs or set train_ids: false)"
        check_files_exist(self.root, masks, f"Cityscapes, {' and '.join(parts)}", kind)
        return MaskedFiles(self.root, encode_paths(images), encode_paths(masks), self.lookup)

    def _pairs(self, part: str, mask_folder: str) -> list[tuple[str, str]]:
        """Return the image and the mask of each scene of a part, relative to the root."""
        folder = f"leftImg8bit/{part}"
        for needed in (folder, f"{mask_folder}/{part}"):
            if not (self.root / needed).is_dir():
                raise layout_error(f"no folder {str(self.root / needed)!r}", type(self), self.root, AbsentSplitError)
        ending = f"_{mask_folder}_{'labelTrainIds' if self.train_ids else 'labelIds'}.png"
        pairs = []
        for city in subfolders(self.root / folder):
            for name in image_names(self.root / folder / city):
                if not name.endswith(_SUFFIX):
                    raise ValueError(f"{self.root / folder / city / name}: image names must end with {_SUFFIX}")
                scene = name.removesuffix(_SUFFIX)
                pairs.append((f"{folder}/{city}/{name}", f"{mask_folder}/{part}/{city}/{scene}{ending}"))
        if not pairs:
            raise layout_error(f"no images in {str(self.root / folder)!r}", type(self), self.root, AbsentSplitError)
        return pairs

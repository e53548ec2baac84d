"""Cityscapes: street scenes with a class for each pixel."""

from pathlib import Path
from typing import Literal, get_args

from ..annotations.argument_checks import did_you_mean
from ..annotations.dataset_layout import check_there, encode_paths, image_names, layout_error, subfolders
from ..annotations.mask_files import IGNORE, MaskedFiles, class_lookup
from ..base import LoaderOptions, Unpack, VisionDataModule

Annotations = Literal["fine", "coarse"]

# the number that a class has in *_labelIds.png; its place here is its train id
_CLASSES = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
# unlabeled, the own car, borders, out of view, static, dynamic, ground; parking, rail track; guard rail, bridge,
# tunnel; pole group; caravan, trailer: too rare, or no class
_VOID = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)

_SPLITS = ("train", "train_extra", "val")
_SUFFIX = "_leftImg8bit.png"


class Cityscapes(VisionDataModule):
    """Street scenes of fifty cities, 2048x1024 pixels, in the nineteen classes that are evaluated.

    Expected layout::

        ROOT/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png …      (leftImg8bit_trainvaltest.zip)
        ROOT/gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png …       (gtFine_trainvaltest.zip)
        ROOT/leftImg8bit/val/…, ROOT/gtFine/val/…
        ROOT/leftImg8bit/train_extra/…, ROOT/gtCoarse/train_extra/…               (for annotations: coarse)

    The publisher's label ids (0 to 33) become train ids (0 to 18); those of no class are ignored. `label_ids` leads
    back, for submissions. Validation and test are on the finely annotated ``val`` (500 images), as papers
    report; the masks of the test set are not public, and those beside it are empty.

    Args:
        root: the folder of ``leftImg8bit``.
        annotations: of training. ``fine``: 2,975 images. ``coarse``: polygons drawn in minutes, for the same images
            and the 19,998 of ``train_extra``.
        train: parts to train on, among ``train``, ``train_extra`` (coarse only) and ``val``. None: all of training's
            for which there are such annotations.
        train_ids: read ``*_labelTrainIds.png``, which Cityscapes' own scripts make, instead of ``*_labelIds.png``.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: when folders or masks are not there; the message shows that tree and what was found.
        ValueError: for an image of another name, or a value in a mask that is no label id.

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
        if annotations not in get_args(Annotations):
            raise ValueError(
                f"data.init_args.annotations: {annotations!r} is not one of {', '.join(get_args(Annotations))}"
                f"{did_you_mean(str(annotations), get_args(Annotations))}"
            )
        known = [split for split in _SPLITS if annotations == "coarse" or split != "train_extra"]
        self.parts = train or [split for split in known if split != "val"]
        if wrong := [part for part in self.parts if part not in known]:
            raise ValueError(
                f"data.init_args.train: {wrong[0]!r} is not one of {', '.join(known)}, which have {annotations} "
                f"annotations{did_you_mean(wrong[0], known)}"
            )
        self.root, self.annotations, self.train_ids = Path(root).expanduser(), annotations, train_ids
        ids = self.label_ids
        table = None if train_ids else {ids[k]: k for k in range(len(ids))} | dict.fromkeys(_VOID, IGNORE)
        self.lookup = class_lookup(table, len(ids), IGNORE)

    @property
    def class_names(self) -> list[str]:
        """The nineteen classes in the order of their train ids."""
        return list(_CLASSES)

    @property
    def label_ids(self) -> list[int]:
        """The publisher's number of each class, as the evaluation server wants it."""
        return list(_CLASSES.values())

    def make_source(self, split: str) -> MaskedFiles:
        """The images of a split; ``test`` is ``val``."""
        parts, kind = (self.parts, self.annotations) if split == "train" else (["val"], "fine")
        pairs = [pair for part in parts for pair in self._pairs(part, "gt" + kind.capitalize())]
        images, masks = (list(column) for column in zip(*pairs, strict=True))
        what = "masks"
        if self.train_ids:
            what += " (train ids, which cityscapesscripts' createTrainIdLabelImgs makes; or set train_ids: false)"
        check_there(self.root, masks, f"Cityscapes, {' and '.join(parts)}", what)
        return MaskedFiles(self.root, encode_paths(images), encode_paths(masks), self.lookup)

    def _pairs(self, part: str, truth: str) -> list[tuple[str, str]]:
        """Image and mask of each scene of a part, below the root."""
        folder = f"leftImg8bit/{part}"
        for needed in (folder, f"{truth}/{part}"):
            if not (self.root / needed).is_dir():
                raise self._layout_error(f"no folder {str(self.root / needed)!r}")
        ending = f"_{truth}_{'labelTrainIds' if self.train_ids else 'labelIds'}.png"
        pairs = []
        for city in subfolders(self.root / folder):
            for name in image_names(self.root / folder / city):
                if not name.endswith(_SUFFIX):
                    raise ValueError(f"{self.root / folder / city / name}: an image's name ends with {_SUFFIX} here")
                scene = name.removesuffix(_SUFFIX)
                pairs.append((f"{folder}/{city}/{name}", f"{truth}/{part}/{city}/{scene}{ending}"))
        if not pairs:
            raise self._layout_error(f"no images in {str(self.root / folder)!r}")
        return pairs

    def _layout_error(self, problem: str) -> FileNotFoundError:
        return layout_error(problem, type(self), self.root)

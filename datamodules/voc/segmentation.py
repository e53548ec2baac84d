"""Pascal VOC's semantic segmentation, with SBD's masks where they are asked for."""

from pathlib import Path

import numpy as np

from ..annotations.dataset_layout import check_there, encode_paths
from ..annotations.mask_files import MaskedFiles, class_lookup, read_mask
from ..base import LoaderOptions, Unpack, VisionDataModule
from ..batches import IGNORE_INDEX
from .detection import VOC_CLASSES
from .image_sets import ImageSets, SegmentationYear
from .sbd import read_class_mat


class VOCSegmentation(VisionDataModule):
    """A class for each pixel of Pascal VOC's images, the background being class 0.

    Expected layout::

        ROOT/VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt    (or ROOT/VOC2012/…; other years likewise)
        ROOT/VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg …
        ROOT/VOCdevkit/VOC2012/SegmentationClass/2007_000032.png …
        ROOT/benchmark_RELEASE/dataset/train.txt, val.txt          (SBD, where it is asked for; or ROOT/sbd/…,
        ROOT/benchmark_RELEASE/dataset/cls/2008_000002.mat …           as torchvision leaves it; or the argument sbd)
        ROOT/benchmark_RELEASE/dataset/img/2008_000002.jpg …       (or VOC 2012's JPEGImages)

    The border that VOC draws around objects, 255, is ignored. SBD has no such border. An image set is one of the
    files in ``ImageSets/Segmentation`` (``train``, ``val``, ``trainval``; of another year ``2007_test``), or

    - ``train_aug``: VOC 2012's train and all of SBD that is not in its val, 10,582 images, to be validated on ``val``;
    - ``sbd_train``, ``sbd_val``: SBD's own sets (8,498 and 2,857), which overlap with VOC's;
    - ``seg11valid``: VOC 2011's val without SBD's train, FCN's 736 images, to be validated on after training on
      ``sbd_train``. It needs VOC 2011, or FCN's list ``seg11valid.txt`` in VOC 2012's ``ImageSets/Segmentation``.

    A training set that shares images with the validation set is warned of.

    Args:
        root: the folder of ``VOCdevkit``, or ``VOCdevkit`` itself.
        year: of the image sets that are named without one.
        train, val, test: image sets, one or several. None for test: VOC 2007's own test set; otherwise that of val,
            since the masks of later test sets are not public.
        sbd: SBD's folder, below `root` or absolute; None: looked for in the places above.
        mask_folder: of VOC's masks, beside ``JPEGImages``. Those who have SBD's masks as PNG files in
            ``SegmentationClassAug`` name that folder, and their list in ``ImageSets/Segmentation``.
        class_names: of another data set in this layout, the background first; None: the background and VOC's twenty.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: when lists, images or masks are not there; the message shows that tree and what was found.
        ValueError: for a value in a mask that is no class; the message names the file.

    Batches are `SemanticSegmentationBatch`.

    Reference: Everingham et al., "The Pascal Visual Object Classes (VOC) challenge", IJCV 2010; for the
    sets with SBD see `voc_image_sets`.
    """

    def __init__(
        self,
        root: str,
        year: SegmentationYear = "2012",
        train: list[str] | str = "train",
        val: list[str] | str = "val",
        test: list[str] | str | None = None,
        sbd: str | None = None,
        mask_folder: str = "SegmentationClass",
        class_names: list[str] | None = None,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.root, self.mask_folder = Path(root).expanduser(), mask_folder
        self.sets = ImageSets(self.root, year, {"train": train, "val": val, "test": test}, sbd, type(self), "cls")
        self._names = ["background", *VOC_CLASSES] if class_names is None else list(class_names)
        if not 0 < len(self._names) < IGNORE_INDEX:
            raise ValueError(f"data.init_args.class_names: {len(self._names)} classes; give 1 to {IGNORE_INDEX - 1}")

    @property
    def class_names(self) -> list[str]:
        """The background and the twenty classes in alphabetical order, or those given."""
        return list(self._names)

    def make_source(self, split: str) -> "ClassFiles":
        """The images of a split."""
        members = self.sets.members(split)
        images = [str(self.sets.image(member)) for member in members]
        masks = [
            str(member.folder / "cls" / f"{member.stem}.mat")
            if member.is_sbd
            else str(member.folder / self.mask_folder / f"{member.stem}.png")
            for member in members
        ]
        asked_by = f"data.init_args.{split}: {' and '.join(self.sets.sets[split])}"
        check_there(Path(), images, asked_by)
        check_there(Path(), masks, asked_by, "masks")
        table = class_lookup(None, len(self._names), IGNORE_INDEX)
        return ClassFiles(Path(), encode_paths(images), encode_paths(masks), table)


class ClassFiles(MaskedFiles):
    """Images with a mask file each: index or palette images, and SBD's MATLAB files."""

    def read(self, path: Path) -> np.ndarray:
        """The numbers of a mask file."""
        return read_class_mat(path) if path.suffix == ".mat" else read_mask(path)

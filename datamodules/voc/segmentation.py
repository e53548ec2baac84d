"""Pascal VOC's semantic segmentation, with SBD's masks for the image sets that need them."""

from pathlib import Path

import numpy as np

from ..annotations.class_names import is_background
from ..annotations.dataset_layout import check_files_exist, encode_paths
from ..annotations.mask_classes import check_mask_classes
from ..annotations.mask_files import MaskedFiles, check_class_count, class_lookup, read_mask
from ..base import LoaderOptions, Unpack, VisionDataModule
from .detection import VOC_CLASSES
from .image_sets import ImageSets, SegmentationYear
from .sbd import read_class_mat


class VOCSegmentation(VisionDataModule):
    """A class for each pixel of Pascal VOC's images; the background is class 0.

    Expected layout::

        ROOT/VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt    (or ROOT/VOC2012/…; other years in the same way)
        ROOT/VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg …
        ROOT/VOCdevkit/VOC2012/SegmentationClass/2007_000032.png …
        ROOT/benchmark_RELEASE/dataset/train.txt, val.txt          (SBD, for sets that need it; or ROOT/sbd/…,
        ROOT/benchmark_RELEASE/dataset/cls/2008_000002.mat …           as torchvision saves it; or the argument sbd)
        ROOT/benchmark_RELEASE/dataset/img/2008_000002.jpg …       (or VOC 2012's JPEGImages)

    The border that VOC draws around objects, 255, is ignored; SBD has no such border. An image set is one of the files
    in ``ImageSets/Segmentation`` (``train``, ``val``, ``trainval``; ``2007_test`` for another year), or

    - ``train_aug``: VOC 2012's train and all of SBD outside its val, 10,582 images, validated on ``val``;
    - ``sbd_train``, ``sbd_val``: SBD's own sets (8,498 and 2,857), which overlap with VOC's;
    - ``seg11valid``: VOC 2011's val without SBD's train, FCN's 736 images, for validation after training on
      ``sbd_train``. It needs VOC 2011, or FCN's list ``seg11valid.txt`` in VOC 2012's ``ImageSets/Segmentation``.

    A training set that shares images with the validation set causes a warning.

    Args:
        root: Folder that contains ``VOCdevkit``, or ``VOCdevkit`` itself, or the folder of a data set of your own,
            which has ``ImageSets``, ``JPEGImages``, … itself.
        year: Year of the image sets that are named without one.
        train: Training image sets, one or several.
        val: Validation image sets.
        test: Test image sets; None: VOC 2007's own test set; otherwise val, since the masks of later test sets are not
            public.
        sbd: Folder of SBD, below `root` or absolute; None: searched for in the folders above.
        mask_folder: Folder of VOC's masks, beside ``JPEGImages``. For SBD's masks as PNG files, name their folder
            (``SegmentationClassAug``) here, and their list in ``ImageSets/Segmentation`` as an image set.
        class_names: Classes of another dataset in this layout, the background first; None: the background and VOC's
            twenty.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Image sets, images or masks are missing; the message shows the expected layout.
        ValueError: A mask has a value without a class; the message names the file.

    Batches are `SemanticSegmentationBatch`.

    Reference: Everingham et al., "The Pascal Visual Object Classes (VOC) challenge", IJCV 2010; for the sets with SBD
    see `striate.datamodules.voc.image_sets`.
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
        check_class_count(self._names)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes: the background and VOC's twenty in alphabetical order, or those of the argument."""
        return list(self._names)

    def make_source(self, split: str) -> "ClassFiles":
        """Return the images and masks of a split."""
        members = self.sets.members(split)
        images = [str(self.sets.image(member)) for member in members]
        masks = [
            str(member.folder / "cls" / f"{member.stem}.mat")
            if member.is_sbd
            else str(member.folder / self.mask_folder / f"{member.stem}.png")
            for member in members
        ]
        asked_by = f"{split}: {' and '.join(self.sets.sets[split])}"
        check_files_exist(Path(), images, asked_by)
        check_files_exist(Path(), masks, asked_by, "masks")
        lookup = class_lookup(None, len(self._names))
        has_background = is_background(self._names[0])
        source = ClassFiles(Path(), encode_paths(images), encode_paths(masks), lookup, has_background)
        if split == "train" and self._names != ["background", *VOC_CLASSES]:
            remedy = "save objects as 1, or read the masks with MaskFolder and classes: {0: 0, 255: 1}"
            check_mask_classes(source, self._names, remedy)
        return source


class ClassFiles(MaskedFiles):
    """Images with one mask file each: gray or palette images, or MATLAB files of SBD."""

    def read(self, path: Path) -> np.ndarray:
        """Read the values of a mask file: ``[H, W]``."""
        return read_class_mat(path) if path.suffix == ".mat" else read_mask(path)

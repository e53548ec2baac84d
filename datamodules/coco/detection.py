"""COCO, and other datasets in its format, for detection and segmentation."""

from pathlib import Path
from typing import Literal, get_args

from ..annotations.annotation_errors import DataError, Fault, MissingFileError, record_error
from ..annotations.argument_checks import check_choice
from ..annotations.dataset_layout import layout_error
from ..annotations.objects import ObjectSource, SemanticSource
from ..annotations.other_formats import other_format_below, other_format_of_file
from ..base import ObjectDataModule, ObjectOptions, Unpack
from ..batches import IGNORE_INDEX
from ..loading.sources import Source
from .annotation_file import CocoFile, is_coco, read_coco
from .json_columns import ENTRY_CODES
from .options import BoxFormat, CocoOptions, Crowds

MAX_FILES = 20
"""Files of other names that a message about a missing one looks into."""
CocoTask = Literal["detection", "instance_segmentation", "semantic_segmentation"]


class CocoDetection(ObjectDataModule):
    """Objects in COCO's format: with boxes, with masks, or merged into one semantic mask per image.

    Expected layout::

        ROOT/annotations/instances_train2017.json    (train_annotations)
        ROOT/train2017/000000000009.jpg …            (train_images)
        ROOT/annotations/instances_val2017.json      (val_annotations)
        ROOT/val2017/000000000139.jpg …              (val_images)

    The classes ``0 … K-1`` are the categories of the file in the order of their ids; `category_ids` maps them back.
    COCO's boxes (x, y, width, height) become x1, y1, x2, y2, clipped to the image. Crowds are kept, with ``iscrowd``
    set. Polygons and run lengths are decoded on demand, to the same pixels as in pycocotools.

    Objects that cannot be used are left out with one warning that counts them, or stop the run if `strict`: a NaN or
    infinite coordinate, a box without area or outside its image; for tasks with masks, polygons of fewer than three
    points, and run lengths of another size. An annotation of an unlisted image or category always stops the run. An
    image of another size than listed counts as unreadable. Numbers in other units stop the run: boxes or polygons in
    fractions of the image, boxes of two corners. An impossible area is computed from the mask or the box.

    Args:
        root: Folder of all files.
        task: ``detection``; ``instance_segmentation``: with masks; ``semantic_segmentation``: the masks of an image
            merged into one, with class 0 as background, small objects on top of large ones, and crowds below all.
        train_annotations: Training annotations, below `root` or absolute.
        train_images: Folder of the training images.
        val_annotations: Validation annotations.
        val_images: Folder of the validation images.
        test_annotations: Test annotations; None: the test split is val.
        test_images: Folder of the test images.
        skip_empty: Whether to train without images that have no object other than crowds; evaluation always includes
            all images.
        crowds: ``ignore``: objects with ``iscrowd`` are never trained on, and are not counted as missed or false.
            ``objects``: the flag is ignored, for tools that set it for each mask drawn with a brush.
        box_format: ``xywh``: x, y, width, height, as COCO defines it. ``xyxy``: two corners. ``auto``: the former;
            the run stops if boxes look like two corners.
        merge_similar_classes: Whether categories whose names differ only in case, blanks or Unicode form are one
            class, and a category named background is the background of semantic segmentation. Otherwise they stop the
            run.
        **kwargs: ``min_visibility`` and ``group_by_aspect`` of `ObjectDataModule`, and the loader options of
            `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Files or images are missing; the message shows the expected layout.
        ValueError: A file is not in COCO's format; the message says where.

    Batches are `DetectionBatch`, `InstanceSegmentationBatch` or `SemanticSegmentationBatch`.
    """

    def __init__(
        self,
        root: str,
        task: CocoTask = "detection",
        train_annotations: str = "annotations/instances_train2017.json",
        train_images: str = "train2017",
        val_annotations: str = "annotations/instances_val2017.json",
        val_images: str = "val2017",
        test_annotations: str | None = None,
        test_images: str | None = None,
        skip_empty: bool = False,
        crowds: Crowds = "ignore",
        box_format: BoxFormat = "auto",
        merge_similar_classes: bool = False,
        **kwargs: Unpack[ObjectOptions],
    ) -> None:
        super().__init__(**kwargs)
        check_choice("task", task, get_args(CocoTask))
        check_choice("crowds", crowds, get_args(Crowds))
        check_choice("box_format", box_format, get_args(BoxFormat))
        self.options = CocoOptions(crowds, box_format, merge_similar_classes)
        self.root, self.task, self.skip_empty = Path(root).expanduser(), task, skip_empty
        self.files = {
            "train": (train_annotations, train_images),
            "val": (val_annotations, val_images),
            "test": (test_annotations or val_annotations, test_images or (val_images if not test_annotations else "")),
        }
        self.reported_as: type = type(self)  # class that messages name and whose docstring shows the layout
        self.contents: dict[tuple[str, str], CocoFile] = {}

    @property
    def class_names(self) -> list[str]:
        """Names of the categories, preceded by the background for semantic segmentation."""
        names = self._any_content().class_names
        return ["background", *names] if self.task == "semantic_segmentation" else list(names)

    @property
    def category_ids(self) -> list[int]:
        """COCO's category id of each class, for submissions; without the background."""
        return list(self._any_content().category_ids)

    @property
    def variable_size_images(self) -> bool:
        """Whether a batch is a list of images; False for semantic segmentation."""
        return self.task != "semantic_segmentation"

    def present_classes(self, source: Source) -> set[int] | None:
        """Return the classes of a training set; in semantic masks the background, and also crowds count."""
        if isinstance(source, SemanticSource):
            return {0, *(source.objects.labels + 1).tolist()}
        return super().present_classes(source)

    def make_source(self, split: str) -> ObjectSource | SemanticSource:
        """Return the images of a split with their objects, or with one semantic mask each."""
        content = self._content(split)
        if self.task == "semantic_segmentation":
            if (count := len(content.class_names)) > IGNORE_INDEX - 2:
                raise ValueError(
                    f"{self.root / self.files[split][0]}, categories: a semantic mask has at most {IGNORE_INDEX - 2} "
                    f"beside the background, got {count}; remove or merge some, or set another task"
                )
            return SemanticSource(content.images, content.objects)
        skip_empty = self.skip_empty and split == "train"
        return ObjectSource(content.images, content.objects, self.task == "instance_segmentation", skip_empty)

    def _any_content(self) -> CocoFile:
        """Return a file that has been read, otherwise read val, the smaller one, for the categories."""
        return next(iter(self.contents.values())) if self.contents else self._content("val")

    def _content(self, split: str) -> CocoFile:
        names = self.files[split]
        if names not in self.contents:
            file, folder = (self.root / name for name in names)
            if not file.is_file():
                hint = _other_files(self.root, split) or other_format_below(self.root)
                raise self._layout_error(f"{split}_annotations: no file {str(file)!r}{hint}")
            if not folder.is_dir():
                if (advice := other_format_of_file(file)) is not None:
                    raise DataError(f"{split}_annotations: must be COCO's JSON, got {str(file)!r}, {advice}")
                raise self._layout_error(f"{split}_images: no folder {str(folder)!r}")
            with_masks = self.task != "detection"
            content = read_coco(
                file, folder, self.task != "semantic_segmentation", with_masks, self.strict, self.options
            )
            content.images.check(file)
            self._check_categories(file, content)
            self.contents[names] = content
        return self.contents[names]

    def _check_categories(self, file: Path, content: CocoFile) -> None:
        """Check that a file has the same categories as those read before."""
        categories = set(zip(content.category_ids, content.class_names, strict=True))
        for names, other in self.contents.items():
            if different := categories ^ set(zip(other.category_ids, other.class_names, strict=True)):
                listed = ", ".join(f"{number} {name!r}" for number, name in sorted(different)[:4])
                found = f"its categories must equal those of {str(self.root / names[0])!r}, got other {listed}"
                record_error(Fault(ENTRY_CODES["categories"], file, ["categories"], "entry", found))

    def _layout_error(self, problem: str) -> MissingFileError:
        return layout_error(problem, self.reported_as, self.root)


def _other_files(root: Path, split: str) -> str:
    """Return ``", but A and B are COCO's: …"`` for annotation files of other names, or ``""``."""
    files = [file for folder in (root, root / "annotations") for file in sorted(folder.glob("*.json"))]
    found = [file.relative_to(root).as_posix() for file in files[:MAX_FILES] if is_coco(file)]
    if not found:
        return ""
    names = f"{' and '.join(found[:3])}{' …' * (len(found) > 3)} {'is' if len(found) == 1 else 'are'} in COCO's format"
    return (
        f", but {names}; name the file of {split} in {split}_annotations ({split}_annotations: {found[0]}), and the "
        f"folder of its images in {split}_images"
    )

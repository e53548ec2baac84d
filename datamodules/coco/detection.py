"""COCO, and whatever else is annotated in its format."""

from pathlib import Path
from typing import Literal, get_args

from ..annotations.annotation_errors import Fault, record_error
from ..annotations.argument_checks import did_you_mean
from ..annotations.dataset_layout import layout_error
from ..annotations.objects import ObjectSource, SemanticSource
from ..base import LoaderOptions, Unpack, VisionDataModule
from .columns import ENTRY_CODES
from .json import CocoFile, read_coco

CocoTask = Literal["detection", "instance_segmentation", "semantic_segmentation"]


class CocoDetection(VisionDataModule):
    """Objects in COCO's format, with boxes, with masks, or painted into one mask an image.

    Expected layout::

        ROOT/annotations/instances_train2017.json    (train_annotations)
        ROOT/train2017/000000000009.jpg …            (train_images)
        ROOT/annotations/instances_val2017.json      (val_annotations)
        ROOT/val2017/000000000139.jpg …              (val_images)

    The classes ``0 … K-1`` are the file's categories in the order of their ids; `category_ids` leads back to these.
    COCO's boxes (x, y, width, height) become x1, y1, x2, y2, clipped to the image. Crowds are kept, with ``iscrowd``
    set. Polygons and run lengths are decoded only for the samples asked for, to pycocotools' own pixels.

    Objects that cannot be used are left out with one warning that counts them, or stop the run when `strict`: a NaN or
    infinite coordinate, a box of no area or outside its image; where masks are asked for, polygons of fewer than
    three points, run lengths of another size. An annotation of an image or a category that is not listed stops it
    always. An image of another size than listed counts as unreadable.

    Args:
        root: the folder of all files.
        task: ``detection``; ``instance_segmentation``: with masks; ``semantic_segmentation``: the masks of an image
            painted into one, class 0 being the background, the smaller over the larger, crowds below all.
        train_annotations, val_annotations, test_annotations: files, below `root` or absolute; without one for test,
            its images are those of val.
        train_images, val_images, test_images: the folders of the images that these list.
        skip_empty: train without images that have no object other than crowds; evaluation always has all.
        min_visibility: part of a box's area that a step of augmentation must leave, or its object is removed.
        group_by_aspect: make training batches of images of like shape, so that less is padded.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: when files or images are not there; the message shows that tree and what was found.
        ValueError: for a file that is not COCO's format; the message says where.

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
        min_visibility: float = 0.0,
        group_by_aspect: bool = False,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        if task not in get_args(CocoTask):
            raise ValueError(
                f"data.init_args.task: {task!r} is not one of {', '.join(get_args(CocoTask))}"
                f"{did_you_mean(str(task), get_args(CocoTask))}"
            )
        self.root, self.task, self.skip_empty, self.min_visibility = (
            Path(root).expanduser(),
            task,
            skip_empty,
            min_visibility,
        )
        self.group_by_aspect = group_by_aspect
        self.files = {
            "train": (train_annotations, train_images),
            "val": (val_annotations, val_images),
            "test": (test_annotations or val_annotations, test_images or (val_images if not test_annotations else "")),
        }
        self.reported_as: type = type(self)  # class that messages name and whose docstring shows the layout
        self._read: dict[tuple[str, str], CocoFile] = {}

    @property
    def class_names(self) -> list[str]:
        """Names of the categories; before them, for semantic segmentation, the background."""
        names = self._any().class_names
        return ["background", *names] if self.task == "semantic_segmentation" else list(names)

    @property
    def category_ids(self) -> list[int]:
        """The file's own number of each class, for submissions; without the background."""
        return list(self._any().category_ids)

    @property
    def variable_size_images(self) -> bool:
        """Whether the task is a detector's."""
        return self.task != "semantic_segmentation"

    def setup(self, stage: str) -> None:
        """As in `VisionDataModule`.

        Raises:
            ValueError: there is not one object to train on.
        """
        super().setup(stage)
        if stage == "fit" and not (content := self._load("train")).objects.counts().any():
            file = self.root / self.files["train"][0]
            raise ValueError(f"{file}, annotations: none of its {len(content.images.names)} images has an object")

    def make_source(self, split: str) -> ObjectSource | SemanticSource:
        """The images of a split."""
        content = self._load(split)
        if self.task == "semantic_segmentation":
            return SemanticSource(content.images, content.objects)
        skip = self.skip_empty and split == "train"
        return ObjectSource(content.images, content.objects, self.task == "instance_segmentation", skip)

    def _any(self) -> CocoFile:
        """A file that has been read, or else the smaller one, to know the categories."""
        return next(iter(self._read.values())) if self._read else self._load("val")

    def _load(self, split: str) -> CocoFile:
        names = self.files[split]
        if names not in self._read:
            file, folder = (self.root / name for name in names)
            if not file.is_file():
                raise self._layout_error(f"data.init_args.{split}_annotations: no file {str(file)!r}")
            if not folder.is_dir():
                raise self._layout_error(f"data.init_args.{split}_images: no folder {str(folder)!r}")
            masks = self.task != "detection"
            content = read_coco(file, folder, self.task != "semantic_segmentation", masks, self.strict)
            content.images.check(file)
            self._check_categories(file, content)
            self._read[names] = content
        return self._read[names]

    def _check_categories(self, file: Path, content: CocoFile) -> None:
        for names, other in self._read.items():
            if (other.category_ids, other.class_names) != (content.category_ids, content.class_names):
                pairs = [dict(zip(c.category_ids, c.class_names, strict=True)).items() for c in (content, other)]
                different = ", ".join(
                    f"{number} {name!r}" for number, name in sorted(set(pairs[0]) ^ set(pairs[1]))[:4]
                )
                what = f"its categories are not those of {str(self.root / names[0])!r}; they differ in {different}"
                record_error(Fault(ENTRY_CODES["categories"], file, ["categories"], "entry", what))

    def _layout_error(self, problem: str) -> FileNotFoundError:
        return layout_error(problem, self.reported_as, self.root)

"""Image sets of VOC's segmentation task and of SBD: the images that a set's name stands for, and their files.

The Semantic Boundaries Dataset (SBD) annotates 11,355 images of VOC 2011's trainval again. Its ``train`` and ``val``
differ from VOC's: images of the training set of one are in the validation set of the other. Papers resolve this in
several ways:

- ``train_aug``: VOC 2012's train plus all of SBD outside VOC 2012's val: 10,582 images, validated on VOC 2012's val
  (1,449). Where VOC has a mask of its own, it is used.
- ``seg11valid``: VOC 2011's val outside SBD's train: 736 images, for validation after training on ``sbd_train``
  (8,498), as in FCN.
- ``sds_train``, ``sds_val``: all of SBD, split by VOC 2012's ``ImageSets/Main`` train and val: 5,623 and 5,732 images,
  for objects, as in SDS and FCIS.

Reference: Hariharan et al., "Semantic contours from inverse detectors", ICCV 2011 (SBD), and "Simultaneous detection
and segmentation", ECCV 2014 (SDS); for FCN's sets, its authors' code (fcn.berkeleyvision.org, data/pascal/README.md).
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from ..annotations.argument_checks import check_choice, did_you_mean
from ..annotations.dataset_layout import layout_error
from ..annotations.objects import confined
from ..annotations.text_files import read_text

SegmentationYear = Literal["2007", "2008", "2009", "2010", "2011", "2012"]

# defined here; other names are files
_COMPOSED = ("train_aug", "seg11valid", "sds_train", "sds_val")
_YEAR_AND_NAME = re.compile(r"(20\d\d)_(.+)")
_SBD_FOLDERS = ("benchmark_RELEASE", "SBD", "sbd", "")


class Member(NamedTuple):
    """An image of an image set.

    Attributes:
        folder: The year's folder, such as ``VOC2012``, or SBD's folder ``dataset``.
        stem: File name without suffix.
        is_sbd: Whether the annotations are SBD's.
    """

    folder: Path
    stem: str
    is_sbd: bool


class ImageSets:
    """Finds the images of image sets by the sets' names.

    Args:
        root: Folder that contains ``VOCdevkit``, or ``VOCdevkit`` itself, or a folder with ``JPEGImages``.
        year: Year of the sets that are named without one.
        sets: Image sets of ``train``, ``val`` and ``test``; None for test: VOC 2007's own test set, otherwise val.
        sbd: Folder of SBD, below `root` or absolute; None: searched for.
        reader: Data module, for messages.
        sbd_folder: Folder of SBD's annotations, ``cls`` or ``inst``.

    Raises:
        ValueError: The year is not VOC's, or a split has no sets.
    """

    def __init__(
        self,
        root: Path,
        year: str,
        sets: dict[str, list[str] | str | None],
        sbd: str | None,
        reader: type,
        sbd_folder: str,
    ) -> None:
        check_choice("year", year, get_args(SegmentationYear))
        sets = sets | {"test": sets["test"] or (["test"] if year == "2007" else sets["val"])}
        self.sets = {split: [names] if isinstance(names, str) else list(names or ()) for split, names in sets.items()}
        for split, names in self.sets.items():
            if not names or not all(names):
                raise ValueError(f"{split}: must name an image set, such as train, got {sets[split]!r}")
        self.root, self.year, self.sbd_folder = root, year, sbd_folder
        self.sbd = None if sbd is None else Path(sbd).expanduser()
        self.reader = reader
        self.devkit = root / "VOCdevkit" if (root / "VOCdevkit").is_dir() else root

    def members(self, split: str) -> list[Member]:
        """Return the images of a split, set by set; an image of several sets is returned once, at its first position.

        Warns about training images that are also in ``val``.

        Raises:
            FileNotFoundError: The file of a set, or SBD, is missing; the message shows the expected layout.
            ValueError: A set has no images, or a name that leads out of its folder.
        """
        members = _unique(member for name in self.sets[split] for member in self._of_name(name, split))
        if split == "train":
            self._warn_about_overlap(members)
        return members

    def image(self, member: Member) -> Path:
        """Return the image file of a member; SBD's images are copies of VOC's, which replace them where missing."""
        if member.is_sbd:
            folder = member.folder / "img"
            voc = self._voc("2012") / "JPEGImages"
            return (voc if voc.is_dir() and not folder.is_dir() else folder) / f"{member.stem}.jpg"
        return member.folder / "JPEGImages" / f"{member.stem}.jpg"

    def _warn_about_overlap(self, members: list[Member]) -> None:
        try:
            held_out = {member.stem for name in self.sets["val"] for member in self._of_name(name, "val")}
        except FileNotFoundError:
            return  # training without validation does not need the files of val
        if overlap := [member.stem for member in members if member.stem in held_out]:
            rank_zero_warn(
                f"validation metrics will be too high: {len(overlap)} of {len(members)} training images "
                f"({' and '.join(self.sets['train'])}) are also in the validation set "
                f"({' and '.join(self.sets['val'])}), such as {overlap[0]}; combine train_aug with val, or sbd_train "
                "with seg11valid"
            )

    def _of_name(self, name: str, split: str) -> list[Member]:
        """Return the images that one name stands for."""
        if name == "train_aug":
            held_out = set(self._stems("2012", "val", split))
            members = self._of_voc("2012", "train", split) + self._of_sbd("train", split) + self._of_sbd("val", split)
            return [member for member in _unique(members) if member.stem not in held_out]
        if name == "seg11valid":
            return self._seg11valid(split)
        if name in ("sds_train", "sds_val"):
            stems = set(self._stems("2012", name.removeprefix("sds_"), split, "Main"))
            members = self._of_sbd("train", split) + self._of_sbd("val", split)
            return [member for member in _unique(members) if member.stem in stems]
        if name.startswith("sbd_"):
            return self._of_sbd(name.removeprefix("sbd_"), split)
        match = _YEAR_AND_NAME.fullmatch(name)
        return self._of_voc(match[1], match[2], split) if match else self._of_voc(self.year, name, split)

    def _seg11valid(self, split: str) -> list[Member]:
        for year in ("2011", "2012"):
            if (file := self._file(year, "seg11valid")).is_file():
                return [Member(self._voc(year), stem, False) for stem in read_stems(file)]
        if not self._file("2011", "val").is_file():
            raise layout_error(
                f"{split}: seg11valid is VOC 2011's val without SBD's train, and there is neither "
                f"{str(self._file('2011', 'val'))!r} nor FCN's list {str(self._file('2012', 'seg11valid'))!r}",
                self.reader,
                self.root,
            )
        trained = {member.stem for member in self._of_sbd("train", split)}
        return [member for member in self._of_voc("2011", "val", split) if member.stem not in trained]

    def _voc(self, year: str) -> Path:
        folder = self.devkit / f"VOC{year}"
        if folder.is_dir() or not (self.root / "JPEGImages").is_dir():
            return folder
        match = re.fullmatch(r"VOC(20\d\d)", self.root.resolve().name)  # the root may be the folder of a year
        return self.root if match is None or match[1] == year else folder

    def _file(self, year: str, name: str, kind: str = "Segmentation") -> Path:
        return self._voc(year) / "ImageSets" / kind / f"{name}.txt"

    def _stems(self, year: str, name: str, split: str, kind: str = "Segmentation") -> list[str]:
        file = self._file(year, name, kind)
        names = [path.stem for path in file.parent.glob("*.txt")]
        return self._read(file, split, [*names, *_COMPOSED, "sbd_train", "sbd_val"] if names else [])

    def _read(self, file: Path, split: str, choices: list[str]) -> list[str]:
        """Read the file of a set; where it is missing, the error suggests the closest of `choices`."""
        if not file.is_file():
            problem = f"{split}: no file {str(file)!r}{did_you_mean(file.stem, choices)}"
            raise layout_error(problem, self.reader, self.root)
        return read_stems(file)

    def _of_voc(self, year: str, name: str, split: str) -> list[Member]:
        return [Member(self._voc(year), stem, False) for stem in self._stems(year, name, split)]

    def _of_sbd(self, name: str, split: str) -> list[Member]:
        folder = self._sbd_dataset(split)
        stems = self._read(folder / f"{name}.txt", split, [path.stem for path in folder.glob("*.txt")])
        return [Member(folder, stem, True) for stem in stems]

    def _sbd_dataset(self, split: str) -> Path:
        """Return SBD's folder ``dataset``, which has its lists and `sbd_folder`."""
        for base in _SBD_FOLDERS if self.sbd is None else (self.sbd,):
            for inner in ("", "dataset", "benchmark_RELEASE/dataset"):
                folder = self.root / base / inner
                if (folder / self.sbd_folder).is_dir():
                    return folder
        searched = "" if self.sbd is None else f" (sbd: {str(self.sbd)!r})"
        raise layout_error(
            f"{split}: {' and '.join(self.sets[split])} needs SBD, but its folder {self.sbd_folder!r} is not in "
            f"{str(self.root)!r}{searched}",
            self.reader,
            self.root,
        )


def read_stems(file: Path) -> list[str]:
    """Read the image names in the file of a set, one per line; further columns are ignored.

    Raises:
        ValueError: There are none, or one leads out of its folder; the message names the line.
    """
    stems = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        stem = line.split()[0]
        if not confined(stem):
            raise ValueError(f"{file}, line {number}: image names must not lead out of their folder, got {stem!r}")
        stems.append(stem)
    if not stems:
        raise ValueError(f"{file}: must have at least one image, got an empty list")
    return stems


def _unique(members: Iterable[Member]) -> list[Member]:
    """Return members with different stems, each at its first position."""
    first: dict[str, Member] = {}
    for member in members:
        first.setdefault(member.stem, member)
    return list(first.values())

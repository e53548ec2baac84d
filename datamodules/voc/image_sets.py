"""The image sets of VOC's segmentation and of SBD: which images a name stands for, and where their files are.

The Semantic Boundaries Dataset (SBD) annotates 11,355 images of VOC 2011's trainval anew. Its ``train`` and ``val`` are
not VOC's: images of one's training set are in the other's validation set. Papers took several ways out:

- ``train_aug``: VOC 2012's train, and all of SBD that is not in VOC 2012's val: 10,582 images, to be validated on VOC
  2012's val (1,449). Where VOC has a mask itself, that one is taken.
- ``seg11valid``: VOC 2011's val that is not in SBD's train: 736 images, to be validated on after training on
  ``sbd_train`` (8,498), as FCN did.
- ``sds_train``, ``sds_val``: all of SBD, parted by VOC 2012's ``ImageSets/Main`` train and val: 5,623 and 5,732 images,
  for objects, as SDS and FCIS did.

Reference: Hariharan et al., "Semantic contours from inverse detectors", ICCV 2011 (SBD), and "Simultaneous detection
and segmentation", ECCV 2014 (SDS); for FCN's sets, its authors' code (fcn.berkeleyvision.org, data/pascal/README.md).
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from ..annotations.annotation_errors import MissingFileError
from ..annotations.argument_checks import did_you_mean
from ..annotations.dataset_layout import layout_error
from ..annotations.objects import confined

SegmentationYear = Literal["2007", "2008", "2009", "2010", "2011", "2012"]

# named here and not after a file
_COMPOSED = ("train_aug", "seg11valid", "sds_train", "sds_val")
_OF_A_YEAR = re.compile(r"(20\d\d)_(.+)")
_SBD_FOLDERS = ("benchmark_RELEASE", "SBD", "sbd", "")


class Member(NamedTuple):
    """An image of a set.

    Attributes:
        home: ``VOC2012`` or another year's folder, or SBD's ``dataset``.
        stem: its name without suffix.
        is_sbd: whether its annotations are SBD's.
    """

    home: Path
    stem: str
    is_sbd: bool


class ImageSets:
    """Finds image sets by name.

    Args:
        root: the folder of ``VOCdevkit``, or ``VOCdevkit`` itself.
        year: of the sets that are named without one.
        sets: the image sets of ``train``, ``val`` and ``test``; None for test: VOC 2007's own test set, otherwise val.
        sbd: SBD's folder, below `root` or absolute; None: looked for.
        reader: Data module, for messages.
        sbd_folder: ``cls`` or ``inst``, of SBD.

    Raises:
        ValueError: for a year that is none of VOC's, or a split without sets.
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
        if year not in get_args(SegmentationYear):
            raise ValueError(
                f"data.init_args.year: {year!r} is not one of {', '.join(map(repr, get_args(SegmentationYear)))}"
                f"{did_you_mean(str(year), get_args(SegmentationYear))}"
            )
        sets = sets | {"test": sets["test"] or (["test"] if year == "2007" else sets["val"])}
        self.sets = {split: [given] if isinstance(given, str) else list(given or ()) for split, given in sets.items()}
        for split, names in self.sets.items():
            if not names or not all(names):
                raise ValueError(f"data.init_args.{split}: {sets[split]!r} names no image set; give one, such as train")
        self.root, self.year, self.sbd_folder = root, year, sbd_folder
        self.sbd = None if sbd is None else Path(sbd).expanduser()
        self.reader = reader
        self.devkit = root / "VOCdevkit" if (root / "VOCdevkit").is_dir() else root

    def of(self, split: str) -> list[Member]:
        """The images of a split: its sets one after another, each image once, where it comes first.

        Warns where images to train on are in ``val`` too.

        Raises:
            FileNotFoundError: when the file of a set, or SBD, is not there; the message shows the tree.
            ValueError: for a set without images, or a name in it that leads out of its folder.
        """
        members = _united(member for name in self.sets[split] for member in self._named(name, split))
        if split == "train":
            self._warn_of_overlap(members)
        return members

    def image(self, member: Member) -> Path:
        """Where an image is: SBD's own copies are VOC's images."""
        if member.is_sbd:
            folder = member.home / "img"
            voc = self._voc("2012") / "JPEGImages"
            return (voc if voc.is_dir() and not folder.is_dir() else folder) / f"{member.stem}.jpg"
        return member.home / "JPEGImages" / f"{member.stem}.jpg"

    def _warn_of_overlap(self, members: list[Member]) -> None:
        try:
            held = {member.stem for name in self.sets["val"] for member in self._named(name, "val")}
        except FileNotFoundError:
            return  # who trains without validation needs no files for it
        if both := [member.stem for member in members if member.stem in held]:
            rank_zero_warn(
                f"{self.reader.__name__}: {len(both)} of {len(members)} images to train on "
                f"({' and '.join(self.sets['train'])}) are in the validation set ({' and '.join(self.sets['val'])}) "
                f"too, such as {both[0]}: its figures will flatter. train_aug goes with val, sbd_train with seg11valid"
            )

    def _named(self, name: str, split: str) -> list[Member]:
        """The images that one name stands for."""
        if name == "train_aug":
            held = set(self._stems("2012", "val", split))
            both = self._of_voc("2012", "train", split) + self._of_sbd("train", split) + self._of_sbd("val", split)
            return [member for member in _united(both) if member.stem not in held]
        if name == "seg11valid":
            return self._seg11valid(split)
        if name in ("sds_train", "sds_val"):
            own = set(self._stems("2012", name.removeprefix("sds_"), split, "Main"))
            both = self._of_sbd("train", split) + self._of_sbd("val", split)
            return [member for member in _united(both) if member.stem in own]
        if name.startswith("sbd_"):
            return self._of_sbd(name.removeprefix("sbd_"), split)
        of_a_year = _OF_A_YEAR.fullmatch(name)
        return self._of_voc(of_a_year[1], of_a_year[2], split) if of_a_year else self._of_voc(self.year, name, split)

    def _seg11valid(self, split: str) -> list[Member]:
        for year in ("2011", "2012"):
            if (file := self._list(year, "seg11valid")).is_file():
                return [Member(self._voc(year), stem, False) for stem in read_stems(file)]
        if not self._list("2011", "val").is_file():
            raise self._missing(
                f"data.init_args.{split}: seg11valid is VOC 2011's val without SBD's train, and there is neither "
                f"{str(self._list('2011', 'val'))!r} nor, as FCN's authors publish it, "
                f"{str(self._list('2012', 'seg11valid'))!r}"
            )
        trained = {member.stem for member in self._of_sbd("train", split)}
        return [member for member in self._of_voc("2011", "val", split) if member.stem not in trained]

    def _voc(self, year: str) -> Path:
        return self.devkit / f"VOC{year}"

    def _list(self, year: str, name: str, kind: str = "Segmentation") -> Path:
        return self._voc(year) / "ImageSets" / kind / f"{name}.txt"

    def _stems(self, year: str, name: str, split: str, kind: str = "Segmentation") -> list[str]:
        file = self._list(year, name, kind)
        if not file.is_file():
            there = [path.stem for path in file.parent.glob("*.txt")]
            hint = _in_brackets(did_you_mean(name, [*there, *_COMPOSED, "sbd_train", "sbd_val"] if there else []))
            raise self._missing(f"data.init_args.{split}: no file {str(file)!r}{hint}")
        return read_stems(file)

    def _of_voc(self, year: str, name: str, split: str) -> list[Member]:
        return [Member(self._voc(year), stem, False) for stem in self._stems(year, name, split)]

    def _of_sbd(self, name: str, split: str) -> list[Member]:
        home = self._sbd_home(split)
        file = home / f"{name}.txt"
        if not file.is_file():
            hint = _in_brackets(did_you_mean(name, [path.stem for path in home.glob("*.txt")]))
            raise self._missing(f"data.init_args.{split}: no file {str(file)!r}{hint}")
        return [Member(home, stem, True) for stem in read_stems(file)]

    def _sbd_home(self, split: str) -> Path:
        """The folder of SBD's lists and of `sbd_folder`."""
        for base in _SBD_FOLDERS if self.sbd is None else (self.sbd,):
            for inner in ("", "dataset", "benchmark_RELEASE/dataset"):
                home = self.root / base / inner
                if (home / self.sbd_folder).is_dir():
                    return home
        at = "" if self.sbd is None else f"data.init_args.sbd, {str(self.sbd)!r}, of "
        raise self._missing(
            f"data.init_args.{split}: {' and '.join(self.sets[split])} needs SBD, and no folder {self.sbd_folder!r} of "
            f"it is in {at}{str(self.root)!r}"
        )

    def _missing(self, problem: str) -> FileNotFoundError:
        return voc_layout_error(problem, self.reader, self.root)


def voc_layout_error(
    problem: str, reader: type, root: Path, error: type[MissingFileError] = MissingFileError
) -> MissingFileError:
    """Return the error for missing data; it suggests the parent folder where `root` is the folder of one year."""
    is_year = re.fullmatch(r"VOC20\d\d", root.resolve().name)
    if not (is_year and (root / "JPEGImages").is_dir() and (root / "Annotations").is_dir()):
        return layout_error(problem, reader, root, error)
    parent = root.parent if root.name else root / ".."
    return MissingFileError(
        f"root: must be the parent of a year's folder, got {str(root)!r}, which has JPEGImages and Annotations; "
        f"set root: {parent}"
    )


def read_stems(file: Path) -> list[str]:
    """The names in an image set's file, one a line; what follows a name on its line is passed over.

    Raises:
        ValueError: when there is none, or one that leads out of its folder; the message has the line.
    """
    stems = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        stem = line.split()[0]
        if not confined(stem):
            raise ValueError(
                f"{file}, line {number}: the image {stem!r} leads out of its folder; give names such as 2007_000032"
            )
        stems.append(stem)
    if not stems:
        raise ValueError(f"{file}: no images in it")
    return stems


def _in_brackets(hint: str) -> str:
    return f" ({hint.removeprefix('; ')})" if hint else ""


def _united(members: Iterable[Member]) -> list[Member]:
    first: dict[str, Member] = {}
    for member in members:
        first.setdefault(member.stem, member)
    return list(first.values())

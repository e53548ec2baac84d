"""How to read what COCO's files leave open."""

from typing import Literal, NamedTuple

Crowds = Literal["ignore", "objects"]
BoxFormat = Literal["auto", "xywh", "xyxy"]


class CocoOptions(NamedTuple):
    """How to read what can be understood in two ways; see `CocoDetection`.

    Attributes:
        crowds: Whether ``iscrowd`` marks crowds, or objects like all others.
        box_format: What the numbers of a box are.
        merge_similar_classes: Whether categories with the same name are one class.
    """

    crowds: Crowds = "ignore"
    box_format: BoxFormat = "auto"
    merge_similar_classes: bool = False

"""Small pictures of offending samples, with their boxes, for the report."""

import base64
from collections.abc import Sequence

import cv2
import numpy as np

SIDE = 220  # pixels of a thumbnail's longer side
QUALITY = 80
_BAD, _MASK, _OTHER, _OUTSIDE = (230, 57, 70), (255, 200, 40), (90, 230, 255), (60, 60, 66)


def thumbnail(
    image: np.ndarray,
    bad: Sequence[Sequence[float]] = (),
    others: Sequence[Sequence[float]] = (),
    masks: Sequence[Sequence[float]] = (),
    side: int = SIDE,
) -> np.ndarray:
    """An image in small, with boxes drawn: `bad` ones thick and red, those of `masks` yellow, `others` thin and blue.

    Where a bad box reaches beyond the image, the picture shows some of what lies around it, in gray.

    Args:
        image: RGB.
        bad, others, masks: boxes, x1, y1, x2, y2 in pixels of the image; what is not finite is left out.
        side: longer side of the thumbnail.

    Shape:
        - image: ``[H, W, 3]`` uint8.
        - Output: ``[h, w, 3]`` uint8.
    """
    bad_boxes, other_boxes, mask_boxes = (_finite(boxes) for boxes in (bad, others, masks))
    height, width = image.shape[:2]
    left, top, right, bottom = _margins(bad_boxes, width, height)
    scale = min(side / max(width + left + right, height + top + bottom), 4.0)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    above, below, before, after = (round(margin * scale) for margin in (top, bottom, left, right))
    frame = np.full((above + size[1] + below, before + size[0] + after, 3), _OUTSIDE, np.uint8)
    frame[above : above + size[1], before : before + size[0]] = small
    for boxes, colour, thick in ((other_boxes, _OTHER, 1), (mask_boxes, _MASK, 2), (bad_boxes, _BAD, 2)):
        for box in boxes:
            _draw(frame, (box + np.array([left, top, left, top])) * scale, colour, thick)
    return frame


def _finite(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    table = np.array(boxes, np.float64).reshape(-1, 4)
    return table[np.isfinite(table).all(axis=1)]


def _margins(boxes: np.ndarray, width: int, height: int) -> tuple[float, float, float, float]:
    """Pixels to show beyond the image, at most half of it, so that boxes there are seen: left, top, right, bottom."""
    if not len(boxes):
        return 0, 0, 0, 0
    low, high = np.minimum(boxes[:, :2], boxes[:, 2:]).min(axis=0), np.maximum(boxes[:, :2], boxes[:, 2:]).max(axis=0)
    beyond = [max(-low[0], 0), max(-low[1], 0), max(high[0] - width, 0), max(high[1] - height, 0)]
    most = max(width, height) / 2
    return tuple(min(one * 1.05 + most / 20, most) if one > 0 else 0.0 for one in beyond)  # type: ignore[return-value]


def _draw(image: np.ndarray, box: np.ndarray, colour: tuple[int, int, int], thick: int) -> None:
    height, width = image.shape[:2]
    # far outside, OpenCV's numbers would overflow
    x1, y1, x2, y2 = (int(v) for v in np.clip(np.rint(box), -10, [width + 10, height + 10] * 2))
    if thick > 1:  # seen on any ground
        cv2.rectangle(image, (x1, y1), (x2, y2), (255, 255, 255), thick + 2)
    cv2.rectangle(image, (x1, y1), (x2, y2), colour, thick)
    if thick > 1 and (abs(x2 - x1) < 6 or abs(y2 - y1) < 6):
        centre = ((x1 + x2) // 2, (y1 + y2) // 2)
        cv2.circle(image, centre, 10, (255, 255, 255), 4)
        cv2.circle(image, centre, 10, colour, 2)


def overlay(image: np.ndarray, mask: np.ndarray, strength: float = 0.5) -> np.ndarray:
    """An image with a semantic mask laid over it, each class in a colour of its own; 0 is left clear, 255 is gray.

    Shape:
        - image: ``[H, W, 3]`` uint8.
        - mask: ``[H, W]`` uint8.
        - Output: ``[H, W, 3]`` uint8.
    """
    colours = cv2.applyColorMap(((np.arange(256) * 67) % 256).astype(np.uint8)[None], cv2.COLORMAP_HSV)[
        0, :, ::-1
    ].copy()
    colours[255] = 128
    mixed = image * (1 - strength) + colours[mask] * strength
    return np.where((mask > 0)[..., None], mixed, image).astype(np.uint8)


def data_uri(image: np.ndarray) -> str:
    """A picture as text that a page may hold: a JPEG in base64."""
    done, coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done  # OpenCV writes any uint8 image as JPEG
    return "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode("ascii")

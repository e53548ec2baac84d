"""Thumbnails of faulty samples with their boxes."""

import base64
from collections.abc import Sequence

import cv2
import numpy as np

THUMBNAIL_SIDE = 220  # pixels of the longer side
QUALITY = 80
_FAULTY, _MASK, _OTHER, _OUTSIDE = (230, 57, 70), (255, 200, 40), (90, 230, 255), (60, 60, 66)


def thumbnail(
    image: np.ndarray,
    faulty: Sequence[Sequence[float]] = (),
    others: Sequence[Sequence[float]] = (),
    masks: Sequence[Sequence[float]] = (),
    side: int = THUMBNAIL_SIDE,
) -> np.ndarray:
    """Draw boxes on a small version of an image: `faulty` thick and red, `masks` yellow, `others` thin and blue.

    Where a faulty box extends beyond the image, a gray margin shows some of its surroundings.

    Args:
        image: RGB image.
        faulty, others, masks: Boxes, x1, y1, x2, y2 in pixels of the image; those that are not finite are skipped.
        side: Longer side of the thumbnail in pixels.

    Shape:
        - image: ``[H, W, 3]`` uint8.
        - Output: ``[h, w, 3]`` uint8.
    """
    tables = (np.array(boxes, np.float64).reshape(-1, 4) for boxes in (faulty, others, masks))
    faulty_boxes, other_boxes, mask_boxes = (table[np.isfinite(table).all(axis=1)] for table in tables)
    height, width = image.shape[:2]
    left, top, right, bottom = _margins(faulty_boxes, width, height)
    scale = min(side / max(width + left + right, height + top + bottom), 4.0)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    above, below, before, after = (round(margin * scale) for margin in (top, bottom, left, right))
    frame = np.full((above + size[1] + below, before + size[0] + after, 3), _OUTSIDE, np.uint8)
    frame[above : above + size[1], before : before + size[0]] = small
    for boxes, color, thickness in ((other_boxes, _OTHER, 1), (mask_boxes, _MASK, 2), (faulty_boxes, _FAULTY, 2)):
        for box in boxes:
            _draw(frame, (box + np.array([left, top, left, top])) * scale, color, thickness)
    return frame


def _margins(boxes: np.ndarray, width: int, height: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom margins in pixels, at most half the image, that show boxes ``[N, 4]`` outside it."""
    if not len(boxes):
        return 0, 0, 0, 0
    low, high = np.minimum(boxes[:, :2], boxes[:, 2:]).min(axis=0), np.maximum(boxes[:, :2], boxes[:, 2:]).max(axis=0)
    beyond = [max(-low[0], 0), max(-low[1], 0), max(high[0] - width, 0), max(high[1] - height, 0)]
    most = max(width, height) / 2
    return tuple(min(one * 1.05 + most / 20, most) if one > 0 else 0.0 for one in beyond)  # type: ignore[return-value]


def _draw(image: np.ndarray, box: np.ndarray, color: tuple[int, int, int], thickness: int) -> None:
    """Draw a box ``[4]`` on an image ``[H, W, 3]``, thick ones with a white border that stands out on any image."""
    height, width = image.shape[:2]
    # OpenCV's integers would overflow far outside
    x1, y1, x2, y2 = (int(v) for v in np.clip(np.rint(box), -10, [width + 10, height + 10] * 2))
    if thickness > 1:
        cv2.rectangle(image, (x1, y1), (x2, y2), (255, 255, 255), thickness + 2)
    cv2.rectangle(image, (x1, y1), (x2, y2), color, thickness)
    if thickness > 1 and (abs(x2 - x1) < 6 or abs(y2 - y1) < 6):
        center = ((x1 + x2) // 2, (y1 + y2) // 2)
        cv2.circle(image, center, 10, (255, 255, 255), 4)
        cv2.circle(image, center, 10, color, 2)


def overlay(image: np.ndarray, mask: np.ndarray, strength: float = 0.5) -> np.ndarray:
    """Overlay a semantic mask on an image, one color per class; 0 stays clear, 255 is gray.

    Shape:
        - image: ``[H, W, 3]`` uint8.
        - mask: ``[H, W]`` uint8.
        - Output: ``[H, W, 3]`` uint8.
    """
    hues = ((np.arange(256) * 67) % 256).astype(np.uint8)
    colors = cv2.applyColorMap(hues[None], cv2.COLORMAP_HSV)[0, :, ::-1].copy()
    colors[255] = 128
    mixed = image * (1 - strength) + colors[mask] * strength
    return np.where((mask > 0)[..., None], mixed, image).astype(np.uint8)


def data_uri(image: np.ndarray) -> str:
    """Encode an image ``[H, W, 3]`` as JPEG in base64, as a URI for a page."""
    encoded, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert encoded  # OpenCV writes any uint8 image as JPEG
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")

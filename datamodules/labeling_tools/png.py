"""PNGs in base64, in which labeling tools keep masks."""

import base64
import io

import numpy as np
from PIL import Image


def decode_png(text: object) -> np.ndarray:
    """Decode a PNG in base64, such as labelme's ``mask``, or in a data URL, such as Label Studio's bit masks.

    Returns:
        The pixels as stored: without palette, and with an alpha channel if there is one.

    Shape:
        - Output: ``[H, W]`` or ``[H, W, C]``.

    Raises:
        ValueError: It is not a PNG in base64.
    """
    try:
        if not isinstance(text, str):
            raise TypeError(f"got {type(text).__name__}")
        with Image.open(io.BytesIO(base64.b64decode(text.rpartition(",")[2], validate=True))) as opened:
            return np.asarray(opened)
    except (TypeError, ValueError, OSError, SyntaxError) as error:
        raise ValueError(f"must be a PNG in base64 ({error})") from error

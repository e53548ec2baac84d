"""Label Studio's run lengths of masks drawn with a brush."""

from collections.abc import Sequence

import numpy as np

_CHANNELS = 4  # red, green, blue, alpha; the mask is alpha
_SIZE_BITS, _WORD_BITS, _LENGTH_BITS = 32, 5, 4


def decode_brush(numbers: Sequence[int], height: int, width: int) -> np.ndarray:
    """Decode a mask.

    The bytes hold, most significant bit first: the number of values (32 bits), the bits per value minus 1 (5 bits),
    four lengths minus 1 (4 bits each), and then blocks. A block has a bit for whether it repeats one value, 2 bits that
    select a length, as many bits with the count of values minus 1, and one value or all of them.

    Args:
        numbers: The bytes.
        height, width: Size of the image in pixels.

    Returns:
        1 where the mask was drawn.

    Shape:
        - Output: ``[height, width]`` uint8.

    Raises:
        ValueError: They are not such bytes, or of another size.

    Reference: thi.ng/rle-pack, https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack
    """
    if not all(type(number) is int and 0 <= number < 256 for number in numbers):
        raise ValueError("brush run lengths must be bytes, 0 to 255")
    bits = _Bits(bytes(numbers))
    size, word = bits.read(_SIZE_BITS), bits.read(_WORD_BITS) + 1
    if size != height * width * _CHANNELS or word != 8:
        raise ValueError(f"brush run lengths are for {size // _CHANNELS} pixels, the image has {height * width}")
    lengths = [bits.read(_LENGTH_BITS) + 1 for _ in range(4)]
    values = np.zeros(size, np.uint8)
    position = 0
    while position < size:
        repeats, length = bits.read(1), lengths[bits.read(2)]
        end = position + bits.read(length) + 1
        if end > size:
            raise ValueError("brush run lengths exceed the image")
        values[position:end] = bits.read_bytes(1 if repeats else end - position)
        position = end
    return (values.reshape(height, width, _CHANNELS)[..., -1] > 0).astype(np.uint8)


class _Bits:
    """Reads numbers from the bits of bytes, one after another."""

    def __init__(self, data: bytes) -> None:
        self._bits, self._position = np.unpackbits(np.frombuffer(data, np.uint8)), 0

    def _take(self, count: int) -> np.ndarray:
        """Return the next bits: ``[count]`` uint8."""
        start, self._position = self._position, self._position + count
        if self._position > len(self._bits):
            raise ValueError("brush run lengths end early")
        return self._bits[start : self._position]

    def read(self, count: int) -> int:
        """Return the next bits as one number."""
        number = 0
        for bit in self._take(count).tolist():
            number = 2 * number + bit
        return number

    def read_bytes(self, count: int) -> np.ndarray:
        """Return the next bytes: ``[count]`` uint8."""
        return np.packbits(self._take(8 * count))

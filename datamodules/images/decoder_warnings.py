"""What image decoders report of damaged files, which they write to the error stream of the process."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# reported by libjpeg and libpng for files that they decode nevertheless; "extraneous bytes" follow the image
_DAMAGE = re.compile(
    r"premature end|bad huffman|corrupt jpeg|invalid|not enough data|crc error|libpng error", re.IGNORECASE
)
_HARMLESS = re.compile(r"extraneous bytes", re.IGNORECASE)


class DecoderWarnings:
    """Captures what image decoders write to the error stream.

    OpenCV's decoders report damaged image data there and nowhere else.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._before = os.dup(2)
        os.dup2(self._file.fileno(), 2)

    def __call__(self) -> str:
        """Return the damage reported since the last call, in one line."""
        descriptor = self._file.fileno()
        size = os.lseek(descriptor, 0, os.SEEK_CUR)
        if not size:
            return ""
        text = os.pread(descriptor, min(size, 10_000), 0).decode(errors="replace")
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        lines = [line.strip() for line in text.splitlines() if _DAMAGE.search(line) and not _HARMLESS.search(line)]
        return "; ".join(dict.fromkeys(lines))

    def close(self) -> None:
        """Restore the error stream of the process."""
        os.dup2(self._before, 2)
        os.close(self._before)
        self._file.close()


@contextlib.contextmanager
def quiet_decoders() -> Iterator[DecoderWarnings]:
    """Keep the output of image decoders off the terminal."""
    sys.stderr.flush()
    decoder_warnings = DecoderWarnings()
    try:
        yield decoder_warnings
    finally:
        decoder_warnings.close()

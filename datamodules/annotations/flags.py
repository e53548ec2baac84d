"""Flags of objects, such as ``iscrowd`` and ``difficult``, as annotation files write them."""

from typing import Any

_WORDS = {
    **dict.fromkeys(("", "0", "0.0", "false"), False),
    **dict.fromkeys(("1", "1.0", "true"), True),
}


def read_flag(value: Any) -> bool | None:
    """Return the value of a flag as it is written: a bool, the number 0 or 1, or a word for these.

    A missing flag, None or a blank text, is False.

    Args:
        value: The value in the file.

    Returns:
        The flag; None: the value is not a flag, and the caller reports it with its place and `FLAG_RULE`.

    >>> read_flag("0"), read_flag(" True "), read_flag(0.0), read_flag(None), read_flag(2), read_flag("2")
    (False, True, False, False, None, None)
    """
    if isinstance(value, str):
        return _WORDS.get(value.strip().lower())
    if value is None:
        return False
    return bool(value) if isinstance(value, bool | int | float) and value in (0, 1) else None


FLAG_RULE = "must be 0, 1, true or false"
"""What a flag must be, for messages."""

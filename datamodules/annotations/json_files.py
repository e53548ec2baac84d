"""Reads JSON files of annotations; errors name the file and the line."""

import json
from pathlib import Path
from typing import Any

from .annotation_errors import DataError, Fault
from .other_formats import other_format_of_text


def read_json(file: Path, expected: str) -> Any:
    """Parse a JSON file.

    Args:
        file: The file.
        expected: What it should be, such as ``COCO's JSON``.

    Raises:
        DataError: The JSON is malformed; the message has the line. Its fault concerns the file.
    """
    text = file.read_bytes()
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if (advice := other_format_of_text(text)) is not None:
            message = f"{file}: must be {expected}, got {advice}"
        else:
            place = f"line {error.lineno}, column {error.colno}"
            message = f"{file}, {place}: malformed JSON ({error.msg}); is the file complete?"
    except UnicodeDecodeError as error:
        message = f"{file}: must be JSON in UTF-8 ({error})"
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or thousands of nested lists
        message = f"{file}: JSON cannot be read ({error})"
    found = message.removeprefix(str(file)).lstrip(":, ")
    raise DataError.of(Fault("annotation-file", file, [str(file)], "path", found), message)

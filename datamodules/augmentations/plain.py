"""Augmentation as plain values, so that a checkpoint can hold the transform that its images need."""

import json
from collections.abc import Sequence
from typing import Any

import albumentations as A
from albumentations.core.serialization import serialize_enum

from .multi_image import Step


def transform_to_plain(transform: A.Compose | Sequence[Step] | None) -> dict[str, Any] | None:
    """Return a transform as numbers, texts, lists and mappings; None for no transform.

    Args:
        transform: Steps in order, or one ``albumentations.Compose``.

    Raises:
        ValueError: A step cannot be written as plain values, such as a function.
    """
    if not transform:
        return None
    try:
        composed = transform if isinstance(transform, A.Compose) else A.Compose(list(transform))
        return json.loads(json.dumps(serialize_enum(A.to_dict(composed))))
    except (NotImplementedError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"val_transform: must have steps that can be written as plain values ({error})") from error


def transform_from_plain(plain: dict[str, Any] | None) -> Any:
    """Rebuild a transform from plain values.

    Raises:
        ValueError: A step is unknown, or takes other arguments today.
    """
    if plain is None:
        return None
    try:
        return A.from_dict(plain)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"val_transform: a step of the checkpoint cannot be rebuilt ({error})") from error

"""Keyword arguments that data modules pass on to their base classes, as types for editors and type checkers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from ..augmentations.multi_image import Step
from ..images.bit_depth import Scale
from .epoch_sampling import Sampling

if TYPE_CHECKING:
    from typing import Unpack as Unpack
else:

    class Unpack:
        """`typing.Unpack` to editors and type checkers, `Any` at run time.

        jsonargparse 4.53 takes an unpacked TypedDict's keys without defaults; behind ``**kwargs: Any`` it finds the
        base's parameters, with their defaults and descriptions.
        """

        def __class_getitem__(cls, options: type) -> Any:
            return Any


Transforms = Sequence[Step]


class LoaderOptionsExceptBatchSize(TypedDict, total=False):
    """`LoaderOptions` of a data module that states its own default of ``batch_size``."""

    eval_batch_size: int | None
    num_workers: int | None
    train_transform: Transforms | None
    val_transform: Transforms | None
    seed: int
    images: str | None
    strict: bool
    sampling: Sampling
    scale_16bit: Scale | list[float] | None
    page: int | None


class LoaderOptions(LoaderOptionsExceptBatchSize, total=False):
    """Names and types of the keyword arguments that every data module passes on to `VisionDataModule`.

    Defaults and descriptions are `VisionDataModule`'s. A constructor takes ``**kwargs: Unpack[LoaderOptions]``, so
    editors and type checkers know the names, and calls ``super().__init__(**kwargs)``.
    """

    batch_size: int


class ObjectOptions(LoaderOptions, total=False):
    """`LoaderOptions` and the options of `ObjectDataModule`, for a constructor's ``**kwargs``."""

    min_visibility: float
    group_by_aspect: bool
    proposals: str | list[str] | None

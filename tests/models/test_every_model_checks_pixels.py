"""Every kind of model rejects what is no image: values, types and layouts, with a suggestion."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from striate.models import (
    FCN,
    LRASPP,
    SSDVGG16,
    ActivationPair,
    AlexNet,
    Classifier,
    DeepLabV3Plus,
    GoogLeNet,
    LeNet5,
    Localizer,
    PlainCNN,
    TorchvisionBackbone,
    TorchvisionSegmentation,
    UNet,
    ZFNet,
    build_backbone,
)

from ..helpers.networks import quick_initialization

MODELS: dict[str, Callable[[], nn.Module]] = {
    "classifier": lambda: Classifier(PlainCNN((8,)), 3),
    "localizer": lambda: Localizer(PlainCNN((8,)), 3),
    "alexnet": lambda: AlexNet(3, width=0.1, hidden=8, image_size=64),
    "zfnet": lambda: ZFNet(3, width=0.1, hidden=8, image_size=64),
    "googlenet": lambda: GoogLeNet(3),
    "lenet": lambda: LeNet5(),
    "lenet_rgb": lambda: LeNet5(in_channels=3),
    "activation_pair": lambda: ActivationPair(num_classes=3, widths=(4, 4, 4)),
    "unet": lambda: UNet(PlainCNN((8, 8)), 3),
    "fcn": lambda: FCN(PlainCNN((8, 8)), 3),
    "deeplab": lambda: DeepLabV3Plus("resnet18", 3, channels=8),
    "lraspp": lambda: LRASPP(3, "mobilenet_v3_small"),
    "torchvision_segmentation": lambda: TorchvisionSegmentation("lraspp_mobilenet_v3_large", 3),
    "torchvision_backbone": lambda: TorchvisionBackbone("resnet18", out_indices=(0,)),
    "ssd_vgg16": lambda: SSDVGG16(width=0.1, hidden=8),
    "lite0": lambda: build_backbone("lite0"),
    "plain": lambda: PlainCNN((8,)),
}

PIXELS = torch.linspace(0, 1, 2 * 3 * 64 * 64).reshape(2, 3, 64, 64)

WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "0..255": (PIXELS * 255, ValueError, r"must be in \[0, 1\], got values from 0 to 255; pass pixels from 0 to 255"),
    "normalized": (PIXELS * 4 - 2, ValueError, "got values from -2 to 2; .*leave normalization to the model"),
    "negative": (PIXELS - 0.5, ValueError, "got values from -0.5 to 0.5"),
    "float64": (PIXELS.double() * 255, ValueError, "got values from 0 to 255"),
    "float16": (PIXELS.half() * 255, ValueError, "got values from 0 to 255"),
    "nan": (PIXELS.where(PIXELS < 1, torch.nan), ValueError, "got values from nan to nan"),
    "infinite": (PIXELS.where(PIXELS < 1, torch.inf), ValueError, "got values from 0 to inf"),
    "int64": ((PIXELS * 255).long(), TypeError, r"got torch.int64; convert pixels with \.to\(torch.uint8\)"),
    "int32": ((PIXELS * 255).int(), TypeError, "got torch.int32; convert"),
    "uint16": ((PIXELS * 255).to(torch.uint16), TypeError, "got torch.uint16; convert"),
    "bool": (PIXELS > 0, TypeError, "got torch.bool$"),
    "array": (PIXELS.numpy(), TypeError, "must be a tensor.*got ndarray"),
    "list": (list(np.zeros((2, 3, 8, 8))), TypeError, "must be a tensor.*got"),
    "channels last": (PIXELS.permute(0, 2, 3, 1), ValueError, r"got (\[2, 64, 64, 3\]|64); .*permute\(0, 3, 1, 2\)"),
    "four channels": (torch.zeros(2, 4, 64, 64), ValueError, r"got (\[2, 4, 64, 64\]|4)$"),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_no_image_is_rejected(name: str) -> None:
    with quick_initialization():
        model = MODELS[name]()
    for training in (True, False):
        model.train(training)
        for images, error, message in WRONG.values():
            with pytest.raises(error, match=f"^images: .*{message}"):
                model(images)
    if not name.startswith("lenet"):
        with pytest.raises(ValueError, match=r"must be \[B, 3, H, W\], got \[2, 1, 64, 64\]"):
            model(PIXELS[:, :1])


def test_gray_images_of_the_wrong_range_are_rejected() -> None:
    with pytest.raises(ValueError, match="got values from 0 to"):
        LeNet5()(PIXELS[:, :1] * 255)

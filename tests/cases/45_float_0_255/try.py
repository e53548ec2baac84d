"""Give two models pixels that are no image, and print what happens."""

import torch

from striate.models import Classifier, PlainCNN, UNet

IMAGES = {
    "float 0..255": torch.rand(2, 3, 32, 32) * 255,
    "imagenet-normalized": torch.randn(2, 3, 32, 32),
    "gray": torch.rand(2, 1, 32, 32),
    "rgba": torch.rand(2, 4, 32, 32),
    "HWC": torch.rand(2, 32, 32, 3),
    "3d": torch.rand(3, 32, 32),
    "int64": torch.randint(0, 256, (2, 3, 32, 32)),
    "numpy": torch.rand(2, 3, 32, 32).numpy(),
    "half": torch.rand(2, 3, 32, 32).half(),
    "empty": torch.rand(0, 3, 32, 32),
    "1x1": torch.rand(2, 3, 1, 1),
}
for network in (Classifier(PlainCNN((8, 16)), num_classes=3).eval(), UNet(PlainCNN((8, 16)), num_classes=3).eval()):
    for kind, images in IMAGES.items():
        try:
            result = f"ok {list(network(images).shape)}"
        except (ValueError, TypeError) as error:
            result = f"{type(error).__name__} {error}"
        print(f"{type(network).__name__} {kind}: {result}")

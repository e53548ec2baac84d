"""VGG, ResNet and GoogLeNet against their papers: parameter counts, and every map at 224 pixels."""

import pytest
import torch

from striate.models import Classifier, build_backbone

from ..helpers.networks import count_parameters, on_meta


@pytest.mark.parametrize(
    "name, count",
    [
        # VGG's Table 2 rounds to 133, 133, 138 and 144 million; batch normalization adds two parameters per channel
        ("vgg11", 132_863_336),
        ("vgg13", 133_047_848),
        ("vgg16", 138_357_544),
        ("vgg19", 143_667_240),
        ("vgg11_bn", 132_863_336 + 2 * (64 + 128 + 2 * 256 + 4 * 512)),
        ("vgg13_bn", 133_047_848 + 2 * (2 * 64 + 2 * 128 + 2 * 256 + 4 * 512)),
        ("vgg16_bn", 138_357_544 + 2 * (2 * 64 + 2 * 128 + 3 * 256 + 6 * 512)),
        ("vgg19_bn", 143_667_240 + 2 * (2 * 64 + 2 * 128 + 4 * 256 + 8 * 512)),
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
    ],
)
def test_parameter_counts_of_the_papers(name: str, count: int) -> None:
    with on_meta():
        classifier = Classifier(name, num_classes=1000)
    assert count_parameters(classifier) == count


PAPER_MAPS = {
    # Table 1, configuration D: channels and side of each block's map, and of the last pooling's
    "vgg16": [(64, 224), (128, 112), (256, 56), (512, 28), (512, 14), (512, 7)],
    # Table 1: conv1, conv2_x to conv5_x
    "resnet18": [(64, 112), (64, 56), (128, 28), (256, 14), (512, 7)],
    "resnet50": [(64, 112), (256, 56), (512, 28), (1024, 14), (2048, 7)],
    # Table 1: the last map of each size
    "googlenet": [(64, 112), (192, 56), (480, 28), (832, 14), (1024, 7)],
}


@pytest.mark.parametrize("name", PAPER_MAPS)
def test_map_sizes_of_the_papers(name: str) -> None:
    with on_meta():
        maps = build_backbone(name).eval()(torch.empty(1, 3, 224, 224, dtype=torch.uint8))
    assert [tuple(m.shape[1:]) for m in maps] == [(channels, side, side) for channels, side in PAPER_MAPS[name]]


def test_each_row_of_googlenets_table_1() -> None:
    sizes: list[tuple[str, int, int]] = []
    with on_meta():
        backbone = build_backbone("googlenet").eval()
        for stage in backbone.stages:
            for layer, module in stage.named_children():
                module.register_forward_hook(
                    lambda _m, _i, out, layer=layer: sizes.append((layer, out.shape[1], out.shape[2]))
                )
        backbone(torch.empty(1, 3, 224, 224, dtype=torch.uint8))
    # "conv2" is the column "#3x3 reduce"
    rows = """
        conv1 64 112, maxpool1 64 56, conv2 64 56, conv3 192 56, maxpool2 192 28, inception3a 256 28,
        inception3b 480 28, maxpool3 480 14, inception4a 512 14, inception4b 512 14, inception4c 512 14,
        inception4d 528 14, inception4e 832 14, maxpool4 832 7, inception5a 832 7, inception5b 1024 7
    """
    expected = [row.split() for row in rows.split(",")]
    assert sizes == [(layer, int(channels), int(side)) for layer, channels, side in expected]

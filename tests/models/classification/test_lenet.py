"""LeNet-5: the paper's tables, and a second implementation in plain functions."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from striate.models.classification.lenet import C3_TABLE, LeNet5, MAPLoss, digit_bitmaps, map_loss, rbf_penalties

from ...helpers.networks import assert_learns, count_parameters, seeded_images

seeded_digits = partial(seeded_images, side=32, channels=1, seed=5)

# Table I of the paper: rows are maps of S2, columns are maps of C3.
TABLE_I = [
    "X...XXX..XXXX.XX",
    "XX...XXX..XXXX.X",
    "XXX...XXX..X.XXX",
    ".XXX..XXXX..X.XX",
    "..XXX..XXXX.XX.X",
    "...XXX..XXXX.XXX",
]


def test_connection_table_is_the_papers():
    drawn = ["".join("X" if row in C3_TABLE[column] else "." for column in range(16)) for row in range(6)]
    assert drawn == TABLE_I


def test_parameters_by_layer():
    net = LeNet5()
    layers = (net.c1, net.s2, net.c3, net.s4, net.c5, net.f6)
    assert [count_parameters(layer) for layer in layers] == [156, 12, 1516, 32, 48120, 10164]
    assert count_parameters(net) == 60000  # "60,000 trainable free parameters": none in the RBF output
    assert count_parameters(LeNet5(output="softmax")) == 60000 + 850
    assert count_parameters(LeNet5(in_channels=3).c1) == 456


def test_map_sizes():
    net, shapes = LeNet5(), {}
    for name in ("c1", "s2", "c3", "s4", "c5", "f6", "output"):
        net.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: shapes.update({name: out.shape}))
    net(seeded_digits(2))
    assert {k: tuple(v[1:]) for k, v in shapes.items()} == {
        "c1": (6, 28, 28),
        "s2": (6, 14, 14),
        "c3": (16, 10, 10),
        "s4": (16, 5, 5),
        "c5": (120, 1, 1),
        "f6": (84,),
        "output": (10,),
    }


def squash(a: torch.Tensor) -> torch.Tensor:
    return 1.7159 * (1 - 2 / (torch.exp(2 * (2 / 3) * a) + 1))


def reference(net: LeNet5, pixels: torch.Tensor) -> torch.Tensor:
    """Compute F6, map by map, for pixels [B, 1, 32, 32] from -0.1 to 1.175."""
    c1 = squash(F.conv2d(pixels, net.c1.weight, net.c1.bias))
    s2 = subsample(c1, net.s2.weight, net.s2.bias)
    maps, start = [], 0
    for column in range(16):
        rows = [row for row in range(6) if TABLE_I[row][column] == "X"]
        kernels = net.c3.weight[start : start + len(rows)]
        start += len(rows)
        total = sum(F.conv2d(s2[:, [row]], kernel[None, None]) for row, kernel in zip(rows, kernels, strict=True))
        maps.append(squash(total + net.c3.bias[column]))
    assert start == 60
    s4 = subsample(torch.cat(maps, 1), net.s4.weight, net.s4.bias)
    c5 = squash(F.linear(s4.flatten(1), net.c5.weight.flatten(1), net.c5.bias))
    return squash(F.linear(c5, net.f6.weight, net.f6.bias))


def subsample(maps: torch.Tensor, coefficient: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    total = maps[..., ::2, ::2] + maps[..., 1::2, ::2] + maps[..., ::2, 1::2] + maps[..., 1::2, 1::2]
    return squash(total * coefficient.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1))


def test_forward_against_plain_functions():
    net, batch = LeNet5(), seeded_digits()
    f6 = reference(net, batch / 255 * 1.275 - 0.1)
    torch.testing.assert_close(net.features(batch), f6, rtol=1e-4, atol=1e-5)
    by_hand = torch.stack([-((f6 - bitmap) ** 2).sum(1) for bitmap in digit_bitmaps()], 1)
    torch.testing.assert_close(net(batch), by_hand, rtol=1e-4, atol=1e-4)
    soft: Any = LeNet5(output="softmax")
    expected = F.linear(reference(soft, batch / 255 * 1.275 - 0.1), soft.output.weight, soft.output.bias)
    torch.testing.assert_close(soft(batch), expected, rtol=1e-4, atol=1e-5)


def test_squashing_maps_1_to_1():
    squashed = LeNet5().squash(torch.tensor([-1.0, 0.0, 1.0, 100.0]))
    torch.testing.assert_close(squashed, torch.tensor([-1.0, 0.0, 1.0, 1.7159]), atol=1e-4, rtol=0)


def test_input_scaling_and_padding():
    net = LeNet5()
    pixels = net.pixels(torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 1, 28, 28))
    assert pixels.shape == (2, 1, 32, 32)
    inner = torch.zeros(32, 32, dtype=torch.bool)
    inner[2:30, 2:30] = True
    torch.testing.assert_close(pixels[1, 0][inner], torch.full((784,), 1.175))
    torch.testing.assert_close(pixels[1, 0][~inner], torch.full((240,), -0.1))
    torch.testing.assert_close(pixels[0], torch.full((1, 32, 32), -0.1))
    # A 28-pixel digit equals the same digit padded to 32 pixels.
    digit = seeded_digits(2, side=28)
    torch.testing.assert_close(net(digit), net(F.pad(digit, (2, 2, 2, 2))))
    torch.testing.assert_close(net(digit / 255), net(digit), rtol=1e-5, atol=1e-4)


def test_rgb_becomes_luminance():
    net, rgb = LeNet5(), seeded_digits(2, channels=3)
    gray = (0.299 * rgb[:, :1].float() + 0.587 * rgb[:, 1:2] + 0.114 * rgb[:, 2:]) / 255
    torch.testing.assert_close(net.pixels(rgb), gray * 1.275 - 0.1)
    torch.testing.assert_close(net.pixels(rgb / 255), gray * 1.275 - 0.1)
    color = LeNet5(in_channels=3)
    torch.testing.assert_close(color.pixels(rgb), rgb / 255 * 1.275 - 0.1)
    torch.testing.assert_close(
        color.c1(color.pixels(rgb)), F.conv2d(rgb / 255 * 1.275 - 0.1, color.c1.weight, color.c1.bias)
    )


def test_larger_images_average_c5_over_its_cells():
    net = LeNet5()
    sheet = seeded_digits(1, side=36)  # C5 has 2 x 2 cells, 4 pixels apart
    cells = []
    net.c5.register_forward_hook(lambda _m, _i, out: cells.append(squash(out).flatten(2)))
    features = net.features(sheet)
    for top in (0, 4):
        for left in (0, 4):
            net.features(sheet[..., top : top + 32, left : left + 32])
    assert cells[0].shape == (1, 120, 4)
    torch.testing.assert_close(cells[0], torch.cat(cells[1:], 2), rtol=1e-4, atol=1e-5)
    c5 = torch.cat(cells[1:], 2).mean(2)
    torch.testing.assert_close(features, squash(F.linear(c5, net.f6.weight, net.f6.bias)), rtol=1e-4, atol=1e-5)


def test_initial_weights_are_uniform_in_their_fan_in_range():
    net = LeNet5()
    bounds = [(net.c1, 2.4 / 25), (net.s2, 0.6), (net.s4, 0.6), (net.c5, 2.4 / 400), (net.f6, 2.4 / 120)]
    for layer, bound in bounds:
        values = torch.cat([p.detach().flatten() for p in layer.parameters()]).abs()
        assert values.max() <= bound
        if len(values) > 100:
            assert values.max() > 0.9 * bound
            assert float(values.mean()) == pytest.approx(bound / 2, rel=0.2)
    fan_in = torch.tensor([75.0] * 6 + [100.0] * 9 + [150.0])
    assert torch.equal(net.c3.fan_in(), fan_in)
    limit = torch.cat([torch.full((int(f) // 25,), 2.4 / float(f)) for f in fan_in])
    reach = net.c3.weight.abs().amax((1, 2))
    assert (reach <= limit).all()
    assert (reach > 0.7 * limit).all()
    assert (net.c3.bias.abs() <= 2.4 / fan_in).all()


def test_bitmaps_of_the_digits_differ():
    bitmaps = digit_bitmaps()
    assert bitmaps.shape == (10, 7 * 12)
    assert bitmaps.abs().unique().tolist() == [1.0]
    differing = (bitmaps[:, None] != bitmaps).sum(-1)
    assert int(differing.masked_fill(torch.eye(10, dtype=torch.bool), 84).min()) >= 10
    one, seven = bitmaps[1].view(12, 7), bitmaps[7].view(12, 7)
    assert (one[:, 3:5] == 1).all()  # the stem of a 1
    assert (seven[0] == 1).all()  # the bar of a 7
    assert (seven[1:, 0] == -1).all()


def test_rbf_by_hand():
    penalties = rbf_penalties(torch.tensor([[1.0, -1.0], [0.5, 2.0]]), torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    assert penalties.tolist() == [[4.0, 4.0], [1.25, 11.25]]
    net = LeNet5()
    assert net.output(digit_bitmaps()).argmax(1).tolist() == list(range(10))
    assert net.output(digit_bitmaps()).diagonal().tolist() == [0.0] * 10


def test_map_loss_by_hand():
    penalties = [[1.0, 3.0, 0.5], [2.0, 0.2, 4.0]]
    expected = 0.0
    for row, right in zip(penalties, (2, 0), strict=True):
        expected += row[right] + math.log(math.exp(-0.1) + sum(math.exp(-y) for y in row))
    logits, labels = -torch.tensor(penalties), torch.tensor([2, 0])
    assert float(map_loss(logits, labels)) == pytest.approx(expected / 2)
    assert float(MAPLoss()(logits, labels)) == pytest.approx(expected / 2)
    assert float(map_loss(logits, F.one_hot(labels, 3).float())) == pytest.approx(expected / 2)
    # With j above all penalties the additional class has no effect, and the loss is cross-entropy.
    torch.testing.assert_close(map_loss(logits, labels, j=1e4), F.cross_entropy(logits, labels))


def test_map_loss_does_not_increase_large_penalties():
    logits = torch.tensor([[-0.01, -30.0]], requires_grad=True)
    map_loss(logits, torch.tensor([0])).backward()
    assert logits.grad is not None
    right, wrong = logits.grad[0].tolist()
    assert right < -0.4  # the gradient of cross-entropy would be about exp(-30)
    assert abs(wrong) < 1e-9


def test_map_loss_of_an_empty_batch_is_zero_with_a_graph():
    logits = torch.zeros(0, 10, requires_grad=True)
    loss = map_loss(logits, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None


@pytest.mark.parametrize("output", ["rbf", "softmax"])
def test_learns_and_trains_every_parameter(output):
    lr, loss = (5e-4, map_loss) if output == "rbf" else (0.05, F.cross_entropy)
    assert_learns(LeNet5(output=output), seeded_digits(8), lr=lr, steps=15, ratio=0.97, loss_function=loss)


def test_bitmaps_are_saved_and_not_trained():
    net = LeNet5()
    assert "output.centres" in net.state_dict()
    assert "output.centres" not in dict(net.named_parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 26}, "num_classes.*got 26.*output='softmax'"),
        ({"num_classes": 0, "output": "softmax"}, "num_classes.*1, got 0"),
        ({"output": "rbff"}, "output.*'rbf', 'softmax', got 'rbff'"),
        ({"in_channels": 2}, "in_channels.*got 2"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LeNet5(**arguments)


def test_invalid_images():
    with pytest.raises(ValueError, match=r"images.*28 x 28.*got 27 x 32"):
        LeNet5()(torch.zeros(1, 1, 27, 32))
    with pytest.raises(ValueError, match=r"images.*1 or 3 channels, got 4"):
        LeNet5()(torch.zeros(1, 4, 32, 32))
    with pytest.raises(ValueError, match=r"images.*takes 3 channels, got 1"):
        LeNet5(in_channels=3)(torch.zeros(1, 1, 32, 32))
    with pytest.raises(TypeError, match="int64"):
        LeNet5()(torch.zeros(1, 3, 32, 32, dtype=torch.int64))


def test_any_class_count_with_softmax():
    assert LeNet5(num_classes=26, output="softmax")(seeded_digits(2)).shape == (2, 26)

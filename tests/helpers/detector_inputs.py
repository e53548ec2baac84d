"""Images, targets and networks that the tests of detectors share."""

from typing import Any

import torch
from torch import nn

from striate.tasks.metrics import COCODetection, COCOInstances

SIZES = ((60, 90), (96, 64), (70, 70))


def random_images(*sizes, seed=0):
    """Images of noise, uint8 ``[3, H, W]``."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]


def target(boxes=(), labels=None):
    """A target with boxes ``[N, 4]`` and labels ``[N]``, by default all 0."""
    boxes = torch.tensor(list(boxes), dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.tensor(labels or [0] * len(boxes), dtype=torch.int64)}


def detection_target(boxes: Any, labels: list[int], **fields: Any) -> dict[str, torch.Tensor]:
    """A detection target with all fields: boxes ``[N, 4]``, labels ``[N]``, and what `fields` replaces."""
    count = len(boxes)
    target = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "iscrowd": torch.zeros(count, dtype=torch.bool),
        "difficult": torch.zeros(count, dtype=torch.bool),
        "image_id": torch.tensor(7),
    }
    target["area"] = (target["boxes"][:, 2:] - target["boxes"][:, :2]).prod(1)
    return target | {name: torch.tensor(value) for name, value in fields.items()}


def detection_batch(sizes: list[tuple[int, int]], targets: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    """A detection batch of noise: one image ``[3, H, W]`` per size ``(H, W)``."""
    images = random_images(*sizes)
    return {"image": images, "target": targets, "index": torch.arange(len(images)), "unreadable": []}


def enlarged_batch() -> dict[str, Any]:
    """A prediction batch: an image of 40 x 20 pixels, enlarged to 80 x 40 and padded by 16 on the left and 4 above."""
    corners = torch.tensor([[[16.0, 4.0], [96.0, 4.0], [16.0, 44.0]]])
    return {"image": random_images((44, 96)), "corners": corners, "file_size": torch.tensor([[20, 40]]), "index": [0]}


def random_targets(sizes, classes, each=3, seed=0):
    """Targets with ``each`` random boxes ``[each, 4]`` per image."""
    generator = torch.Generator().manual_seed(seed)
    targets = []
    for height, width in sizes:
        corner = torch.rand(each, 2, generator=generator) * torch.tensor([width, height]) * 0.6
        side = torch.rand(each, 2, generator=generator) * torch.tensor([width, height]) * 0.3 + 3
        labels = torch.randint(0, classes, (each,), generator=generator)
        targets.append({"boxes": torch.cat([corner, corner + side], 1), "labels": labels})
    return targets


def with_masks(
    targets: list[dict[str, torch.Tensor]], sizes: tuple[tuple[int, int], ...]
) -> list[dict[str, torch.Tensor]]:
    """Targets with ellipses in their boxes as masks ``[N, H, W]``."""
    result = []
    for target, (height, width) in zip(targets, sizes, strict=True):
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        x1, y1, x2, y2 = (target["boxes"][:, side, None, None] for side in range(4))
        inside = ((x - (x1 + x2) / 2) / (x2 - x1) * 2) ** 2 + ((y - (y1 + y2) / 2) / (y2 - y1) * 2) ** 2 <= 1
        result.append({**target, "masks": inside.to(torch.uint8)})
    return result


@torch.no_grad()
def shake(network, seed=0):
    """Give a network of torchvision's random statistics, and weights with which scores differ widely."""
    torch.manual_seed(seed)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.05)
            module.running_var.uniform_(0.8, 1.2)
            module.weight.uniform_(0.5, 0.9)
        if isinstance(module, nn.Conv2d) and "head.conv" in name:  # otherwise the outputs would be almost 0
            nn.init.kaiming_normal_(module.weight)
        last = name.rpartition(".")[2]
        if last in ("cls_logits", "cls_score", "bbox_pred", "bbox_reg", "bbox_ctrness") or "module_list." in name:
            for layer in [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]:
                fan_in = layer.weight[0].numel()
                layer.weight.normal_(0, (1.0 if "cls" in name else 0.3) * fan_in**-0.5)
                if layer.bias is not None:
                    layer.bias.normal_(0, 0.3)
    return network


def sample_all(network):
    """Make a two-stage network train on all anchors and proposals, so that losses are deterministic."""
    for part in ("rpn", "roi_heads"):
        if hasattr(network, part):
            getattr(network, part).fg_bg_sampler.batch_size_per_image = 10**6
    return network


def assert_same_detections(ours, theirs, labels=None, tolerance=1e-5):
    """Boxes to 1e-5 of the images' sides, scores to 1e-5; ``labels``: theirs for each of ours."""
    assert sum(len(found["boxes"]) for found in theirs) > 10
    for mine, other in zip(ours, theirs, strict=True):
        assert len(mine["boxes"]) == len(other["boxes"])
        torch.testing.assert_close(mine["scores"], other["scores"], atol=tolerance, rtol=0)
        torch.testing.assert_close(mine["boxes"], other["boxes"], atol=tolerance * 100, rtol=tolerance)
        mapped = mine["labels"] if labels is None else torch.tensor(labels)[mine["labels"]]
        assert torch.equal(mapped, other["labels"])


def assert_same_losses(ours, theirs, tolerance=1e-5):
    """Each loss to 1e-5 of itself; ours begin ``loss_``."""
    named = {name if name.startswith("loss_") else f"loss_{name}": loss for name, loss in theirs.items()}
    assert ours.keys() == named.keys()
    for name, loss in named.items():
        assert loss > 0
        torch.testing.assert_close(ours[name], loss, atol=tolerance, rtol=tolerance)


def overfit(
    model: nn.Module,
    images: Any,
    targets: list[dict[str, torch.Tensor]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    steps: int = 200,
    max_norm: float = 5.0,
) -> None:
    """Train a detector on the same batch in each step, with gradients of at most this norm."""
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        sum(model.losses(images, targets).values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        if schedule is not None:
            schedule.step()


def map50(detections, targets, num_classes):
    """COCO's mean AP at an IoU of 0.5."""
    metric = COCODetection(num_classes)
    metric.update(detections, targets)
    return float(metric.compute()["map50"])


def mask_map50(detections, targets, num_classes):
    """COCO's mean AP of masks at an IoU of 0.5."""
    metric = COCOInstances(num_classes)
    metric.update(detections, targets)
    return float(metric.compute()["map50"])

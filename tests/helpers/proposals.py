"""Detectors on proposals for tests."""

import torch
from torch import nn

from striate.models import ProposalDetector, ResizeAndPad


class Echo(ProposalDetector):
    """Detects each proposal, as the class and with the score of its position; keeps what it was trained on."""

    def __init__(self, num_classes: int = 3, min_size: int | None = None, proposer: dict | None = None):
        super().__init__(num_classes, ResizeAndPad(min_size), proposer)
        self.shift = nn.Parameter(torch.zeros(()))
        self.trained_on: list[dict] = []
        self.resized: list[torch.Tensor] = []

    def detect_proposals(self, batch, proposals):
        self.resized = proposals
        return [
            {
                "boxes": boxes,
                "scores": torch.linspace(0.9, 0.1, len(boxes)),
                "labels": torch.arange(len(boxes)) % self.num_classes,
            }
            for boxes in proposals
        ]

    def compute_losses(self, batch, targets):
        self.trained_on = targets
        return {"loss_shift": self.shift.square() + 1}

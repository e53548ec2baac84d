"""SSD300 and SSD512 as published, and SSD300 as torchvision has it, with its weights."""

import re
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection import SSD300_VGG16_Weights

from ..weights import State, load_state_dict_file, load_weights, pretrained_is_skipped
from .ssd import SSD, ExtraLayer
from .ssd_backbone import SSDVGG16
from .ssd_boxes import Clip, ssd_scales

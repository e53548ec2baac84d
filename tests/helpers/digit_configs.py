"""Configurations of short runs on DigitScenes, one for each task."""

from .launcher import run_config

BACKBONE = {"class_path": "striate.models.PlainCNN", "init_args": {"widths": [8, 16]}}
LOCALIZER = {"num_classes": 10, "features": "spatial", "box": "per_class", "box_width": 16, "backbone": BACKBONE}
RESIZE = {"class_path": "albumentations.Resize", "init_args": {"height": 32, "width": 32}}

CLASSIFICATION = run_config(
    "Classification",
    {"class_path": "striate.models.Classifier", "init_args": {
        "num_classes": 10, "backbone": BACKBONE}},
    {"class": "DigitScenes", "task": "classification", "image_size": 32, "train_size": 16, "val_size": 12,
     "batch_size": 8},
    lr=0.01, trainer={},
)  # fmt: skip
LOCALIZATION = run_config(
    "Localization",
    {"class_path": "striate.models.Localizer", "init_args": LOCALIZER},
    {"class": "DigitScenes", "task": "localization", "image_size": 32, "scale": [0.6, 0.9], "train_size": 48,
     "val_size": 12, "batch_size": 12, "val_transform": [RESIZE]},
    lr=0.01, trainer={"max_epochs": 1},
    box_loss={"class_path": "striate.models.BoxLoss", "init_args": {"kind": "giou"}},
)  # fmt: skip
SEGMENTATION = run_config(
    "SemanticSegmentation",
    {"class_path": "striate.tests.helpers.tiny_segmenter.TinySegmenter", "init_args": {"num_classes": 11}},
    {"class": "DigitScenes", "task": "semantic_segmentation", "image_size": 32, "train_size": 24, "val_size": 9,
     "batch_size": 8, "val_transform": [RESIZE]},
    lr=0.02, trainer={"max_epochs": 2},
)  # fmt: skip
DETECTION = run_config(
    "Detection",
    {"class_path": "striate.tests.helpers.tiny_detector.TinyDetector",
     "init_args": {"num_classes": 10, "dropout": 0.1}},
    {"class": "DigitScenes", "task": "detection", "image_size": 32, "train_size": 24, "val_size": 9, "test_size": 5,
     "batch_size": 8},
    lr=0.02, trainer={"max_epochs": 2, "gradient_clip_val": 10.0}, voc=2007,
)  # fmt: skip
INSTANCES = run_config(
    "InstanceSegmentation",
    {"class_path": "striate.models.MaskRCNN",
     "init_args": {
         "num_classes": 10, "backbone": {"class_path": "striate.models.PlainCNN", "init_args": {"widths": [8, 16]}},
         "min_size": None, "max_size": None, "fpn_channels": 16, "hidden": 32, "mask_channels": 8, "mask_layers": 1,
         "anchor_sizes": [[8], [16]], "proposals": [60, 30], "score_threshold": 0.0, "max_detections": 10}},
    {"class": "DigitScenes", "task": "instance_segmentation", "image_size": 32, "train_size": 16, "val_size": 5,
     "test_size": 4, "batch_size": 8},
    lr=0.01, trainer={"max_epochs": 1, "gradient_clip_val": 10.0}, map_r=True, boundary=True, max_detections=20,
)  # fmt: skip

"""Private names of W&B that `callbacks.compat` uses: this file fails when one moves."""

import inspect

import numpy as np
import wandb

from striate.callbacks.compat import wandb_image


def test_names_of_wandb_images():
    layer = {"box_data": [], "class_labels": {0: "cat"}}
    image = wandb_image(np.zeros((4, 5, 3), np.uint8), boxes={"ground_truth": layer}, caption="one")
    assert isinstance(image, wandb.Image) and not image.is_bound()
    assert image._path.endswith(".png") and image._run is None and image._masks is None
    assert not image._boxes["ground_truth"].is_bound()
    parameters = list(inspect.signature(wandb.Image.bind_to_run).parameters)
    assert parameters == ["self", "run", "key", "step", "id_", "ignore_copy_err"]


def test_an_image_that_is_not_logged_yet_is_not_referred_to():
    first = wandb_image(np.zeros((4, 5, 3), np.uint8))
    second = wandb_image(np.ones((4, 5, 3), np.uint8), first)
    assert second._path != first._path and second._sha256 != first._sha256

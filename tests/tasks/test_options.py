"""Arguments that all tasks share: their names and defaults stand once, in `Task`, and a configuration shows them."""

import inspect

import pytest
from jsonargparse import ArgumentParser

from striate.tasks import Classification, Detection, Localization, SemanticSegmentation
from striate.tasks.base import Task
from striate.tasks.optimizers import TaskOptions

TASKS = (Classification, Detection, Localization, SemanticSegmentation)


def test_options_are_parameters_of_the_base():
    assert TaskOptions.__annotations__.keys() == inspect.signature(Task).parameters.keys() - {"model", "num_classes"}


@pytest.mark.parametrize("task", TASKS)
def test_a_configuration_has_the_defaults_of_the_base(task):
    parser = ArgumentParser()
    parser.add_class_arguments(task, "model")
    options = parser.get_defaults().model.as_dict()
    for name in ("backbone_lr_factor", "decay_norm_and_bias", "scheduler"):
        assert options[name] == inspect.signature(Task).parameters[name].default

"""Private names of other libraries that the launcher depends on still do what it needs."""

import inspect

from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from striate.experiments.launcher.compat import MetricsLogger, drop_anonymous
from striate.tests.helpers.launcher import read_csv


def test_the_csv_writer_checks_its_folder_in_a_method_that_can_be_overridden():
    sources = [inspect.getsource(cls) for cls in inspect.getmro(ExperimentWriter)[:-1]]
    assert any("self._check_log_dir_exists()" in source for source in sources), (
        "Lightning's ExperimentWriter no longer calls _check_log_dir_exists: AppendingWriter would lose the metrics "
        "of a resumed run"
    )


def test_the_csv_logger_stores_its_writer(tmp_path):
    logger = CSVLogger(tmp_path)
    writer = logger.experiment
    assert getattr(logger, "_experiment", None) is writer, (
        "Lightning's CSVLogger no longer stores its writer as _experiment: MetricsLogger cannot replace it"
    )


def test_metrics_are_appended_when_a_run_is_resumed(tmp_path):
    for step in (1, 2):
        logger = MetricsLogger(tmp_path, "a", "fit-1")
        logger.log_metrics({"x": step} | ({"y": 5} if step == 2 else {}), step)
        logger.save()
    rows = read_csv(tmp_path / "a" / "fit-1" / "metrics.csv")
    assert rows == [{"step": "1", "x": "1", "y": ""}, {"step": "2", "x": "2", "y": "5"}]


def test_the_argument_anonymous_is_removed(tmp_path):
    logger = WandbLogger(save_dir=str(tmp_path), offline=True)
    assert "anonymous" in getattr(logger, "_wandb_init", {}), (
        "Lightning's WandbLogger no longer passes `anonymous` in _wandb_init: remove drop_anonymous"
    )
    drop_anonymous(logger)
    assert "anonymous" not in logger._wandb_init

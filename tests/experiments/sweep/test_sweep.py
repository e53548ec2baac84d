"""``striate sweep`` with trials that take no time: searches, interruptions, failures, shared storages, wrong calls."""

import itertools
import shutil
import signal
import subprocess

import pytest
import yaml
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.trial import TrialState, create_trial

from striate.experiments.runs.differences import short_names
from striate.experiments.sweep import study
from striate.experiments.sweep.charts import make_axis
from striate.experiments.sweep.study import SharedStudy
from striate.experiments.sweep.trials import read_values
from striate.tests.helpers.launcher import launch, launch_error
from striate.tests.helpers.processes import HANG, start_striate, wait_for
from striate.tests.helpers.sweeps import load_study, trial_rows, write_sweep

QUALITY = {"quality": {"min": 0.0, "max": 1.0}}


def starts(folder):
    """Number of the trial and checkpoint of each process that has started."""
    lines = (folder / "starts.txt").read_text().splitlines()
    return [(int(line.split(" ", 1)[0]), line.split(" ", 1)[1]) for line in lines]


def test_grid_covers_all_and_only_the_grid(workdir, capsys):
    values = {"quality": {"values": [0.1, 0.2]}, "a": {"values": [None, True, [1, 2]]}, "b": {"min": 1, "max": 2}}
    write_sweep(workdir, values, "grid")
    launch("sweep", "fake.yaml", "--jobs", 2)
    rows = trial_rows(workdir / "runs/fake/sweep-1")
    tried = [(row["quality"], row["a"], row["b"]) for row in rows.values()]
    assert sorted(tried) == sorted(itertools.product(["0.1", "0.2"], ["null", "true", "[1, 2]"], ["1", "2"]))
    assert {row["state"] for row in rows.values()} == {"finished"}
    first = (workdir / "runs/fake/sweep-1/trial-0/output.txt").read_text()
    assert "--a=None --b=1 --quality=0.1 " in first  # as W&B's agent writes the values


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_report_of_a_search(method, workdir, capsys):
    values = {**QUALITY, "model.lr": {"distribution": "normal"}, "model.net": {"values": ["a.Net", "a.Big"]}}
    write_sweep(workdir, values, method, name="a <b> sweep")
    launch("sweep", "fake.yaml", "--trials", 12, "--jobs", 2, "--model.depth=3")
    output = capsys.readouterr().out
    folder = workdir / "runs/fake/sweep-1"
    rows = trial_rows(folder)
    assert len({row["quality"] for row in rows.values()}) == 12
    best = max(rows, key=lambda number: float(rows[number]["quality"]))
    assert next(iter(rows)) == best  # the best comes first
    assert f"Best: trial {best}, val/acc {float(rows[best]['quality']):.4g}" in output
    assert f"--quality={rows[best]['quality']} --model.depth=3\n" in output
    config = yaml.safe_load((folder / "best.yaml").read_text())
    assert config == {"model": {"quality": float(rows[best]["quality"])}}
    page = (folder / "report.html").read_text()
    assert rows[best]["quality"][:6] in page and "://" not in page.replace("http://www.w3.org/2000/svg", "")
    for name in ("importance.png", "parallel_coordinates.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert '"--wandb.group=a <b> sweep"' in (folder / "trial-0/output.txt").read_text().replace("'", '"')


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_page_is_drawn_by_a_browser(workdir):
    values = {**QUALITY, "a</script>": {"values": ["<b>x</b>", "y & z"]}, "model.lr": {"min": 0.1, "max": 0.2}}
    write_sweep(workdir, values)
    launch("sweep", "fake.yaml", "--trials", 5, "--jobs", 2)
    page = (workdir / "runs/fake/sweep-1/report.html").as_uri()
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=True).stdout
    drawn = dom.partition("<svg")[2].partition("</svg>")[0]
    assert drawn.count("<path") == 5 and drawn.count("<line") == 4
    assert dom.partition("<tbody")[2].count("<tr") == 5 and "&lt;b&gt;x&lt;/b&gt;" in drawn
    assert dom.partition('class="bars"')[2].count("<span") == 3
    assert "5 trials; best: trial" in dom


def test_bayes_searches_near_the_best(workdir):
    write_sweep(workdir, {**QUALITY, "epochs": {"value": 1}}, "bayes")
    launch("sweep", "fake.yaml", "--trials", 20, "--jobs", 2)
    rows = trial_rows(workdir / "runs/fake/sweep-1")
    early, late = ([float(rows[number]["quality"]) for number in numbers] for numbers in (range(10), range(12, 20)))
    assert sum(late) / 8 > sum(early) / 10 + 0.1


def test_early_termination_stops_the_worse_half(workdir, capsys):
    write_sweep(
        workdir,
        {"quality": {"values": [0.9, 0.8, 0.3, 0.2, 0.85]}, "epochs": {"value": 4}, "paced": {"value": 1}},
        "grid",
        early_terminate={"type": "hyperband", "min_iter": 2, "eta": 2},
    )
    launch("sweep", "fake.yaml", "--jobs", 1)
    rows = trial_rows(workdir / "runs/fake/sweep-1")
    states = {row["quality"]: row["state"] for row in rows.values()}
    kept = {"0.9": "finished", "0.8": "finished", "0.85": "finished"}
    assert states == {**kept, "0.3": "stopped early", "0.2": "stopped early"}
    assert all(int(row["logged"]) == 4 for row in rows.values() if row["state"] == "finished")
    assert all(int(row["logged"]) < 4 for row in rows.values() if row["state"] != "finished")
    study = load_study(workdir / "runs/fake/sweep-1/study.journal")
    assert [trial.state for trial in study.trials].count(TrialState.PRUNED) == 2


@pytest.mark.parametrize("checkpoint", [True, False])
def test_sweep_survives_sigkill_and_resumes_with_distinct_trials(checkpoint, workdir, capsys):
    gate = workdir / "gate-2"
    values = {**QUALITY, "gate": {"value": str(gate)}}
    write_sweep(workdir, {**values, "checkpoint": {"value": 1}} if checkpoint else values)
    process = start_striate(workdir, "sweep", "fake.yaml", "--trials", 6)
    folder = workdir / "runs/fake/sweep-1"
    journal, table = folder / "study.journal", folder / "trial-2/fit-1/metrics.csv"
    wait_for(lambda: table.is_file() and '"trial_id":2,"step":0' in journal.read_text(), process)
    process.kill()
    process.communicate()
    with journal.open("a") as file:
        file.write('{"op_code":')  # a line that was cut off
    gate.touch()
    launch("sweep", "fake.yaml", "--trials", 6, "--resume")
    rows = trial_rows(folder)
    assert sorted(rows) == list(range(6)) and {row["state"] for row in rows.values()} == {"finished"}
    assert len({row["quality"] for row in rows.values()}) == 6
    started = starts(folder)
    # another trial may start while the process of the interrupted one is still ending
    assert sorted(number for number, _ in started) == [0, 1, 2, 2, 3, 4, 5]
    expected = str(folder / "trial-2/fit-1/checkpoints/last.ckpt") if checkpoint else ""
    assert [checkpoint for number, checkpoint in started if number == 2] == ["", expected]
    assert ("trial 2 continues" if checkpoint else "trial 2 starts again") in capsys.readouterr().out


def test_the_lock_of_a_killed_process_resolves_so_that_it_expires(workdir, monkeypatch):
    made = []
    monkeypatch.setattr(study, "JournalFileSymlinkLock", lambda path: made.append(path) or JournalFileSymlinkLock(path))
    study.open_storage("runs/study.journal")
    (workdir / "runs" / "lock").symlink_to(made[0])
    assert (workdir / "runs" / "lock").exists()


def test_interrupted_sweep_says_how_to_go_on(workdir):
    write_sweep(workdir, {**QUALITY, "gate": {"value": str(workdir / "gate-1")}})
    process = start_striate(workdir, "sweep", "fake.yaml", "--trials", 2)
    wait_for((workdir / "runs/fake/sweep-1/trial-1/fit-1/metrics.csv").is_file, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=HANG)
    assert process.returncode == 130
    assert "trial 1 interrupted" in output
    assert "striate: interrupted; to continue: striate sweep fake.yaml --trials 2 --resume" in output
    journal = workdir / "runs/fake/sweep-1/study.journal"
    study = load_study(journal)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.RUNNING]
    first = study.trials[1].user_attrs["seconds"]
    (workdir / "gate-1").touch()
    launch("sweep", "fake.yaml", "--trials", 2, "--resume")
    # the time of a continued trial is that of all its processes, and not of the pause between them
    assert 0 < first < float(trial_rows(journal.parent)[1]["seconds"])


def test_failing_trials_are_recorded_and_do_not_stop_the_rest(workdir, capsys):
    write_sweep(workdir, {"quality": {"values": [0.1, 0.2, 0.3, 0.4]}, "fail": {"value": 1}}, "grid")
    with pytest.raises(SystemExit) as exit_:
        launch("sweep", "fake.yaml")
    assert exit_.value.code == 1
    rows = trial_rows(workdir / "runs/fake/sweep-1")
    assert len(rows) == 4 and {row["state"] for row in rows.values()} == {"failed"}
    assert rows[2]["error"] == "model.lr: must be positive, got trial 2"
    write_sweep(workdir, {"quality": {"values": [0.1, 0.2, 0.3, 0.4]}, "fail": {"value": 2}}, "grid")
    launch("sweep", "fake.yaml")
    rows = trial_rows(workdir / "runs/fake/sweep-2")
    states = {number: row["state"] for number, row in rows.items()}
    assert states == {0: "finished", 1: "finished", 2: "failed", 3: "finished"}
    assert "trial 2 failed: model.lr: must be positive, got trial 2" in capsys.readouterr().out


def test_more_trials_of_a_finished_sweep(workdir, capsys):
    write_sweep(workdir, QUALITY, run_cap=5)
    launch("sweep", "fake.yaml", "--trials", 2)
    launch("sweep", "fake.yaml", "--trials", 9, "--resume")
    assert [number for number, _ in starts(workdir / "runs/fake/sweep-1")] == [0, 1, 2, 3, 4]  # run_cap
    launch("sweep", "fake.yaml", "--resume")
    assert "all 5 trials of fake have run" in capsys.readouterr().err


def test_target_ends_the_search(workdir):
    metric = {"name": "val/acc", "goal": "maximize", "target": 0.5}
    write_sweep(workdir, {"quality": {"values": [0.1, 0.6, 0.2]}}, "grid", metric=metric)
    launch("sweep", "fake.yaml")
    assert [number for number, _ in starts(workdir / "runs/fake/sweep-1")] == [0, 1]


@pytest.mark.parametrize("storage", ["shared.journal", "sqlite:///shared.db"])
def test_two_processes_share_a_storage(storage, workdir):
    # the first two trials wait for each other, so that one process alone would hang
    write_sweep(workdir, {**QUALITY, "meet": {"value": 2}})
    call = ("sweep", "fake.yaml", "--trials", 7, "--storage", storage)
    processes = [start_striate(workdir, *call) for _ in range(2)]
    outputs = [process.communicate(timeout=HANG)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    study = load_study(storage if "://" in storage else workdir / storage)
    assert sorted(number for number, _ in starts(workdir / "runs/fake/sweep-1")) == list(range(7))
    finished = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert [trial.number for trial in finished] == list(range(7))
    assert len({trial.params["quality"] for trial in finished}) == 7
    assert len({trial.user_attrs["host"] for trial in finished}) == 2
    assert [path.name for path in (workdir / "runs/fake").iterdir()] == ["sweep-1"]


def test_values_depend_on_the_seed_and_not_on_the_process(workdir):
    write_sweep(workdir, QUALITY)
    for seed in (0, 0, 1):
        launch("sweep", "fake.yaml", "--trials", 2, "--seed", seed)
    first, second, other = (
        [row["quality"] for _, row in sorted(trial_rows(workdir / f"runs/fake/sweep-{number}").items())]
        for number in (1, 2, 3)
    )
    assert first == second and not set(first) & set(other)


GOOD = {"method": "random", "metric": {"name": "val/acc", "goal": "maximize"}, "parameters": QUALITY, "program": "a.py"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methd": "grid"}, "methd: no such key of a sweep; did you mean 'method'?"),
        ({"method": "baies"}, "method: must be one of grid, random, bayes, got 'baies'; did you mean 'bayes'?"),
        ({"metric": None}, "metric: must have a name and a goal, got None; for accuracy write"),
        ({"metric": {"name": "a", "goal": "max"}}, "metric.goal: must be minimize or maximize, got 'max'"),
        ({"metric": {"name": "a", "aim": 1}}, "metric: no such key, got 'aim'"),
        ({"metric": {"name": "a", "target": "b"}}, "metric.target: must be a number, got 'b'"),
        ({"parameters": {}}, "parameters: must map names to distributions, got {}"),
        ({"parameters": {"lr": {"min": 2, "max": 1}}}, "parameters.lr.min: must be less than max, got min 2 and max 1"),
        ({"parameters": {"lr": {}}}, "parameters.lr: has no values"),
        ({"method": "grid"}, "parameters.quality: grid takes values, int_uniform and q_uniform, got uniform"),
        ({"command": ["striate", "fit"]}, 'command: has no place for the parameters; end it with "${args}"'),
        ({"command": "striate fit"}, "command: must be a list of words, got 'striate fit'"),
        ({"command": ["a", "${argz}", "${args}"]}, "command: unknown placeholder, got ${argz}"),
        ({"program": None, "command": []}, "command: must be a list of words, got []"),
        ({"run_cap": 0}, "run_cap: must be a whole number of at least 1, got 0"),
        ({"early_terminate": {"type": "hyperband"}}, "early_terminate: needs min_iter, or max_iter and s"),
    ],
)
def test_bad_files(change, message, workdir, capsys):
    (workdir / "bad.yaml").write_text(yaml.safe_dump({**GOOD, **change}))
    assert launch_error(capsys, 2, "sweep", "bad.yaml", "--trials", 1).startswith(f"bad.yaml: {message}")
    assert not (workdir / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.yaml"], "sweep none.yaml: no such file and no packaged experiment"),
        (["good.yaml"], "--trials: missing; a random search has no end"),
        (["good.yaml", "--trials", "x"], "--trials: must be a whole number, got 'x'"),
        (["good.yaml", "--trials", "0"], "--trials: must be at least 1, got 0"),
        (["good.yaml", "--trails", "3"], "sweep: unknown argument, got --trails; did you mean 'trials'?"),
        (["good.yaml", "--trials", "3", "--resume"], "--resume: no sweep in 'runs/good'; start one without --resume"),
        (["good.yaml", "--trials", "3", "--name", "a/b"], "--name: must be letters, digits"),
        (["good.yaml", "--trials", "3", "--name", ".."], "--name: must be letters, digits"),
        (["good.yaml", "--trials", "3", "--storage", "."], "--storage: cannot be opened (is a folder), got '.'"),
        (["good.yaml", "--trials", "3", "--storage", "good.yaml/x"], "--storage: cannot be opened (File exists), got"),
        (["good.yaml", "--trials", "3", "--storage", "nosql://x/y"], "--storage: cannot be opened (Can't load plugin"),
        (["good.yaml", "--trials", "3", "--storage", "sqlite:////no/x.db"], "--storage: cannot be opened ("),
        (["text.yaml", "--trials", "3"], "text.yaml: must map keys to values, got str"),
        (["broken.yaml", "--trials", "3"], "broken.yaml: not valid YAML ("),
        (["quickstart", "--trials", "3"], "quickstart: is an experiment, not a sweep"),
        (["good.yaml", "--wandb"], "--wandb: not logged in; run `wandb login`"),
    ],
)
def test_wrong_calls(words, message, workdir, capsys, monkeypatch):
    monkeypatch.setenv("NETRC", str(workdir / "netrc"))
    monkeypatch.setenv("HOME", str(workdir))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    (workdir / "good.yaml").write_text(yaml.safe_dump(GOOD))
    (workdir / "text.yaml").write_text("grid")
    (workdir / "broken.yaml").write_text("a: [1")
    assert launch_error(capsys, 2, "sweep", *words).startswith(message)


def test_a_changed_file_does_not_continue_another_sweep(workdir, capsys):
    write_sweep(workdir, QUALITY)
    launch("sweep", "fake.yaml", "--trials", 1)
    write_sweep(workdir, {"quality": {"min": 0.0, "max": 2.0}})
    message = launch_error(capsys, 2, "sweep", "fake.yaml", "--trials", 2, "--resume")
    assert message.startswith("parameters: differs from that of the stored sweep 'fake'")


def test_a_metric_that_is_never_logged_costs_one_trial(workdir, capsys):
    write_sweep(workdir, {"quality": {"values": [1, 2, 3]}, "metric": {"value": "val/accuracy"}}, "grid")
    with pytest.raises(SystemExit) as exit_:
        launch("sweep", "fake.yaml")
    output = capsys.readouterr()
    wrong = "metric.name: the run has not logged it, got 'val/acc'; did you mean 'val/accuracy'?"
    assert f"trial 0 failed: {wrong}" in output.out and exit_.value.code == 1
    assert output.err.splitlines() == [
        f"striate: trial 0 so far: {wrong}",
        "striate: no more trials are started, since they would fail like trial 0; correct the file",
    ]
    assert list(trial_rows(workdir / "runs/fake/sweep-1")) == [0]


def test_a_trial_that_has_diverged_fails_alone(workdir, capsys):
    write_sweep(workdir, {"quality": {"values": ["nan", 1, 2]}}, "grid")
    launch("sweep", "fake.yaml")
    rows = trial_rows(workdir / "runs/fake/sweep-1")
    assert [rows[number]["state"] for number in range(3)] == ["failed", "finished", "finished"]
    assert rows[0]["error"] == "val/acc: was NaN or infinite after every epoch"


def test_a_configuration_that_cannot_be_read_costs_one_trial_unless_others_can(workdir, capsys):
    write_sweep(workdir, {"quality": {"values": [1, 2, 3]}, "wrong": {"values": [0, 1]}}, "grid")
    with pytest.raises(SystemExit):
        launch("sweep", "fake.yaml", "--wrong.call=0")
    assert list(trial_rows(workdir / "runs/fake/sweep-1")) == [0]
    assert "trial 0 failed: --wrong: no such key" in capsys.readouterr().out
    launch("sweep", "fake.yaml", "--wrong.call=1")
    states = {number: row["state"] for number, row in trial_rows(workdir / "runs/fake/sweep-2").items()}
    assert states == {0: "finished", 1: "failed", 2: "finished", 3: "failed", 4: "finished", 5: "failed"}


def test_a_command_that_cannot_be_started(workdir, capsys):
    write_sweep(workdir, QUALITY, command=["no-such-program", "${args}"])
    with pytest.raises(SystemExit):
        launch("sweep", "fake.yaml", "--trials", 2)
    assert "trial 1 failed: command: cannot be started (No such file or directory), got 'no-such-program'" in (
        capsys.readouterr().out
    )


def test_a_storage_that_fails_in_the_middle_is_one_line(workdir, capsys, monkeypatch):
    write_sweep(workdir, QUALITY)
    answers = iter([[0]])

    def waiting(self, limit):
        for numbers in answers:
            self.study.add_trial(create_trial(state=TrialState.WAITING))
            return numbers
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SharedStudy, "waiting", waiting)
    message = launch_error(capsys, 1, "sweep", "fake.yaml", "--trials", 2)
    assert message.startswith("sweep fake: stopped ([Errno 28] No space left on device); its trials save their state")


def test_values_of_a_table_that_is_being_written():
    text = "step,val/acc,val/loss\n9,0.5,1\n14,,2\n19,nan,1\n19,0.75,1\n9,0.6,1\n29,0.9"
    assert read_values(text, "val/acc") == (["step", "val/acc", "val/loss"], [0.6, 0.75])


def test_choices_whose_texts_are_cut_off_alike_are_numbered():
    long = ["a.Transform" + "x" * 30 + end for end in "bc"]
    axis = make_axis("transform", [long[1], None, long[0]], ordered=[*long, "none"])
    assert axis.positions == [0.5, None, 0.0]
    (_, first), (_, second), third = axis.ticks
    assert first.startswith("1: ") and second.startswith("2: ") and third == (1.0, "none")


def test_short_names():
    names = ["model.optimizer.lr", "model.optimizer", "model.a.dim", "model.b.dim", "data"]
    assert list(short_names(names).values()) == ["lr", "optimizer", "a.dim", "b.dim", "data"]

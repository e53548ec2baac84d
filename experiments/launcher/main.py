"""Entry point of ``striate``: handles everything that needs no torch, and passes the rest to the launcher."""

import io
import os
import sys
from collections.abc import Sequence

from ... import __version__
from .catalogue import resolve_configs, run_experiments
from .messages import did_you_mean, fail, list_commands

COMMANDS = {
    "fit": "train an experiment",
    "validate": "evaluate a checkpoint on the validation split",
    "test": "evaluate a checkpoint on the test split",
    "predict": "predict the images of a file, a folder or a glob pattern",
    "sweep": "search hyperparameters: `striate sweep --help`",
    "runs": "list the runs, or compare some on one page: `striate runs --help`",
    "data": "show, check or export a data set: `striate data --help`",
    "experiments": "list the packaged experiments; `striate experiments NAME` prints one",
}

RUNS = ("fit", "validate", "test", "predict")
"""The commands that start a run."""

USAGE = """\
usage: striate COMMAND --config FILE [--config FILE …] [--KEY VALUE …]

{commands}

FILE is a YAML file or the name of a packaged experiment:
    striate fit --config quickstart
Any key of the YAML can be overridden:
    striate fit --config quickstart --trainer.max_epochs 3 --data.batch_size 32
    striate fit --config quickstart --print_config          prints the resolved configuration
    striate fit --config quickstart --ckpt_path last        resumes the last run
    striate predict --config quickstart --ckpt_path best --data.images PATH
`striate COMMAND --help` lists the keys that are used most, `--help all` lists all of them. With STRIATE_TRACEBACK=1
in the environment, errors come with a traceback."""

KEYS = """\
usage: striate {command} --config FILE [--config FILE …] [--KEY VALUE …]

{description}. FILE is a YAML file or the name of a packaged experiment
(`striate experiments` lists them). Later files and keys override earlier ones. `init_args` can be left out of a key;
`null` means none.

    --config FILE                    configuration file; several are merged
    --print_config                   print the resolved configuration and exit
    --ckpt_path PATH|last|best       checkpoint; last and best: those of the newest training run;
                                     or wandb:ENTITY/PROJECT/NAME:ALIAS, a URL, s3://…
    --allow_random_weights           let validate, test and predict run without trained weights
    --trusted_modules LIST           packages that class paths may name, such as striate,torch (default: all)
    --seed_everything N              seed of all random numbers (default: 0)

Folder of the run: ROOT/NAME/{command}-NUMBER
    --run.name NAME                  name of the experiment (default: name of the configuration file)
    --run.root FOLDER                folder of all runs (default: runs)

Weights & Biases
    --wandb.mode MODE                auto, online, offline or off (default: auto, online with a login)
    --wandb.project NAME             project (default: WANDB_PROJECT, or striate)
    --wandb.entity NAME              user or team
    --wandb.name NAME                name of the run (default: such as detection/ssd_digits/fit-1)
    --wandb.group NAME               group of runs (default: name of the experiment)
    --wandb.tags LIST                such as '[a, b]'
    --wandb.notes TEXT               description of the run
    --wandb.checkpoints WHICH        upload checkpoints: none, best or all (default: none)

Data
    --data CLASS                     data module, such as CocoDetection
    --data.batch_size N              samples per step and device
    --data.num_workers N             loader processes per device
    --data.images PATH               images for predict: file, folder or glob pattern
    --data.help CLASS                list the keys of a data module

Model
    --model.model CLASS              network; --model.model.KEY VALUE sets its arguments
    --model.optimizer CLASS          optimizer, such as SGD; --model.optimizer.lr X is its learning rate
    --model.scheduler CLASS          schedule, such as striate.tasks.Cosine
    --model.help CLASS               list the keys of a task, such as striate.tasks.Detection

Trainer (those of Lightning)
    --trainer.max_epochs N           length of training in epochs; --trainer.max_steps N: in steps
    --trainer.accelerator NAME       auto, cpu, gpu, …
    --trainer.devices N              number of devices; several: with --trainer.strategy ddp
    --trainer.precision NAME         such as 32-true, 16-mixed, bf16-mixed
    --trainer.limit_val_batches X    number or fraction of validation batches; also limit_train_batches, …
    --trainer.overfit_batches N      train on the same N batches
    --trainer.fast_dev_run true      run one batch of everything, and save nothing
    --trainer.logger CLASS           further logger, such as TensorBoardLogger; false: none
    --trainer.callbacks+=CLASS       add a callback, such as EarlyStopping

`striate {command} --help all` lists every key."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Exits with 0 for success, 1 for a failure, 2 for a wrong call, 130 after Ctrl-C, and 143 after SIGTERM.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # class names may be in a script that the terminal lacks
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            run_command(words)
        finally:
            sys.stdout.flush()  # a closed pipe must raise here, and not while Python exits
    except BrokenPipeError as error:  # the reader has enough, as in `striate experiments | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error.__context__, SystemExit):
            raise error.__context__ from None
        if words and words[0] in RUNS and not {"-h", "--help", "--print_config"} & set(words):
            fail(f"{words[0]}: stopped, because its output was closed; write it to a file instead", 1)
    except KeyboardInterrupt:  # while torch is loaded and the configuration read; later, commands handle it
        fail("interrupted", 130)


def run_command(words: list[str]) -> None:
    """Run the command that is the first of the words."""
    command = words[0] if words else "--help"
    if command in ("-h", "--help"):
        print(USAGE.format(commands=list_commands(COMMANDS)))  # noqa: T201
    elif command in ("-V", "--version"):
        print(f"striate {__version__}")  # noqa: T201
    elif command == "experiments":
        run_experiments(words[1:])
    elif command == "data":
        from ..data.commands import run

        run(words[1:])
    elif command == "runs":
        from ..runs.commands import run as list_runs

        list_runs(words[1:])
    elif command == "sweep":
        from ..sweep import commands

        if {"-h", "--help"} & set(words) or len(words) == 1:
            print(commands.USAGE)  # noqa: T201
        elif code := commands.sweep(words[1:]):
            raise SystemExit(code)
    elif command not in RUNS:
        hint = did_you_mean(command, COMMANDS, otherwise=f"; use {', '.join(COMMANDS)}")
        fail(f"{command}: no such command{hint}")
    elif {"-h", "--help"} & set(words) and words[-1] != "all":
        print(KEYS.format(command=command, description=COMMANDS[command].capitalize()))  # noqa: T201
    else:
        if {"-h", "--help"} & set(words):
            words = [command, "--help"]
        sys.argv[1:] = resolve_configs(words)  # Lightning starts the other ranks of DDP with sys.argv
        # Let torch's CPU threads sleep while they wait instead of spinning. Where they share cores with loader
        # workers or other jobs, spinning slows everything down (on 2 busy cores: 2.2 s per step instead of 0.36 s).
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from .cli import launch

        launch(words)


if __name__ == "__main__":
    main()

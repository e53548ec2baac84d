"""``striate sweep --wandb``: registers the sweep with W&B and starts agents for it."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ..launcher.gpus import visible_gpus
from ..launcher.messages import fail, notice
from .spec import Sweep
from .trials import end_with_parent


def run_agents(sweep: Sweep, options: argparse.Namespace, extra: Sequence[str]) -> int:
    """Register a sweep, and run one agent per job until W&B has no more runs for them.

    Args:
        sweep: The sweep.
        options: The options of the command line.
        extra: Further arguments of every run.

    Returns:
        The exit code: that of the first agent that failed.
    """
    from ..launcher.runs import has_login

    if options.resume or options.storage:
        fail("--wandb: W&B stores the sweep, so --resume and --storage have no effect; start an agent to continue one")
    if not has_login():
        fail("--wandb: not logged in; run `wandb login`, or leave out --wandb to run the sweep without an account")
    import wandb

    content = {**sweep.content, "command": [*sweep.command, *extra]}
    content.setdefault("program", "striate")
    if options.trials is not None:
        content["run_cap"] = min(options.trials, sweep.run_cap or options.trials)
    project = content.get("project") or os.environ.get("WANDB_PROJECT") or "striate"
    try:
        identifier = wandb.sweep(content, entity=content.get("entity"), project=project)
    except Exception as error:  # of many kinds, from the client and from the network
        fail(f"--wandb: the sweep cannot be registered ({str(error).strip().splitlines()[0]})", 1)
    place = "/".join(filter(None, [content.get("entity"), project, identifier]))
    jobs = options.jobs or max(len(visible_gpus()), 1)
    notice(f"starting {jobs} agent{'s' if jobs > 1 else ''}; on other machines: wandb agent {place}")
    command = [sys.executable, "-m", "wandb", "agent", place]
    # `striate` and `python` in the command of the sweep are those of this installation
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path}
    agents = [subprocess.Popen(command, env=environment, preexec_fn=end_with_parent()) for _ in range(jobs)]
    try:
        codes = [agent.wait() for agent in agents]
    except KeyboardInterrupt:  # the agents have received it too, and end their runs
        codes = [agent.wait() for agent in agents]
        return 130
    return next((code for code in codes if code), 0)

"""One configuration for all ranks of a run: that of the first rank, whatever the others were started with.

An agent that hands out hyperparameters, or a file that changes between two starts, would otherwise give each process
values of its own.
"""

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from .messages import fail

if TYPE_CHECKING:
    from torch.distributed import TCPStore

VARIABLE = "STRIATE_FIRST_RANK_CONFIG"
"""Variable of the environment with the path of the configuration, for the processes that Lightning starts."""

KEY = "striate/config"

TIMEOUT = 300
"""Seconds that a rank waits for the first one."""

PORT_DISTANCE = 10007
"""Distance of the port for the configuration from that of the process group, which Lightning opens later."""

_open: list["TCPStore"] = []  # kept by the first rank until it ends, since others may ask late


def receive_config(folder: Path) -> Path | None:
    """The configuration of the first rank as a file; None on the first rank, and in a run of one process.

    Args:
        folder: Folder for the file.
    """
    rank, size = external_rank()
    if size > 1:
        if rank == 0:
            return None
        try:
            text = connect(host=False).get(KEY).decode()
        except (RuntimeError, OSError) as error:
            address = f"{os.environ.get('MASTER_ADDR')}:{store_port()}"
            reason = str(error).strip().split("\n")[0]
            fail(f"rank {rank}: got no configuration from the first rank at {address} ({reason}); see its output", 1)
        path = folder / "first_rank.yaml"
        path.write_text(text, encoding="utf-8")
        return path
    if os.environ.get("LOCAL_RANK", "0") != "0" and VARIABLE in os.environ:
        return Path(os.environ[VARIABLE])
    return None


def send_config(text: str, folder: Path) -> None:
    """Give the configuration of this process, the first rank, to all others.

    Args:
        text: The resolved configuration as YAML.
        folder: Folder for the file, which must exist until all others have started.
    """
    if external_rank()[1] > 1:
        _open.append(connect(host=True))
        _open[-1].set(KEY, text)
        return
    path = folder / "first_rank.yaml"
    path.write_text(text, encoding="utf-8")
    os.environ[VARIABLE] = str(path)


def external_rank() -> tuple[int, int]:
    """Rank and number of the processes that torchrun or SLURM has started; (0, 1) if Lightning starts the others."""
    from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

    if TorchElasticEnvironment.detect():
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if SLURMEnvironment.detect() and int(os.environ["SLURM_NTASKS"]) > 1:
        try:
            environment = SLURMEnvironment()
        except RuntimeError:  # contradictory settings, which the trainer reports
            return 0, 1
        if "MASTER_ADDR" not in os.environ:
            os.environ["MASTER_ADDR"] = environment.main_address
        os.environ["MASTER_PORT"] = str(environment.main_port)
        return environment.global_rank(), environment.world_size()
    return 0, 1


def store_port() -> int:
    """Port of the store: that of torchrun's own, or another one than that of the process group."""
    port = int(os.environ["MASTER_PORT"])
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return port
    return port + PORT_DISTANCE if port < 50000 else port - PORT_DISTANCE


def connect(host: bool) -> "TCPStore":
    """Open the store that all ranks share.

    Args:
        host: Whether this process hosts it, unless torchrun does.
    """
    from torch.distributed import TCPStore

    hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return TCPStore(
        os.environ["MASTER_ADDR"],
        store_port(),
        is_master=host and not hosted,
        wait_for_workers=False,
        timeout=timedelta(seconds=TIMEOUT),
    )


def leave_group() -> None:
    """Leave the process group at the end of a run that has succeeded on all ranks.

    Otherwise, a thread of Gloo may still hold tensors of the last exchange while Python exits, and abort the process
    ("terminate called without an active exception"). Leaving joins these threads, unless PyTorch's wrapper for training
    keeps them; then much has happened since the last exchange.

    Reference:
        https://github.com/pytorch/pytorch/pull/179291
    """
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

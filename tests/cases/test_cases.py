"""Small inputs as real tools and people produce them, each with the behavior that striate must show.

Each folder here holds such an input and ``expected.yaml``: a comment that says what the input is, and the steps, run in
order in a copy of the folder. A step has one of these:

- ``striate``: Arguments of a call, run in a process of its own.
- ``shell``: A command line for bash.

and what must come out:

- ``exit``: Exit code; default 0.
- ``says``: Regular expressions that must match its output (standard output and error, wrapped lines joined).
- ``never``: Regular expressions that must not match; a traceback never may.
- ``files``: For files that the step wrote, by glob pattern, regular expressions that must match their text.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from striate.tests.helpers.processes import forked_striate, shell

CASES = sorted(path.parent for path in Path(__file__).parent.glob("*/expected.yaml"))
NEVER = ("Traceback", "Segmentation fault")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Path, tmp_path: Path) -> None:
    folder = tmp_path / "case"
    shutil.copytree(case, folder, symlinks=True)
    for step in yaml.safe_load((case / "expected.yaml").read_text(encoding="utf-8")):
        run_step(step, folder)


def run_step(step: dict[str, Any], folder: Path) -> None:
    """Run one step of a case in its folder, and compare its exit code, output and files with what the step states."""
    assert step.keys() <= {"striate", "shell", "exit", "says", "never", "files"}
    code, output = forked_striate(step["striate"], folder) if "striate" in step else shell(step["shell"], folder)
    text = re.sub(r"\s+", " ", output)
    assert code == step.get("exit", 0), output
    for pattern in step.get("says", []):
        assert re.search(pattern, text), f"{pattern!r} is not in:\n{output}"
    for pattern in (*NEVER, *step.get("never", [])):
        assert not re.search(pattern, text), f"{pattern!r} is in:\n{output}"
    for glob, patterns in step.get("files", {}).items():
        paths = sorted(folder.glob(glob))
        assert paths, f"no file {glob}"
        for pattern in patterns:
            assert any(re.search(pattern, path.read_text(encoding="utf-8")) for path in paths), f"{pattern!r}: {glob}"

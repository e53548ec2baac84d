"""The command line as a process: what it prints where the terminal has few characters."""

import os
import subprocess
import sys


def test_characters_that_the_terminal_lacks_are_escaped():
    code = "from striate.experiments.launcher.main import main; main(['--help'])"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and "--KEY VALUE \\u2026" in done.stdout and not done.stderr

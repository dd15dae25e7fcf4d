"""Hosts that take commands from Systems Manager: this machine, or a part of it that has hardly any processes."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache


@cache
def small() -> dict[str, str]:
    """A host that sees its own processes only, where this machine lets us make one (as root, in a PID namespace).

    A capture reads every process that it sees, and those of all stacks of a session are hundreds. Whatever a test leaves
    running there is gone when the script ends: one that is about that takes this machine as it is.
    """
    shell = f"{shutil.which('unshare')} --pid --fork --kill-child --mount-proc sh"
    tried = subprocess.run([*shell.split(), "-c", "true"], capture_output=True, check=False) if shutil.which("unshare") else None
    return {"Shell": shell} if tried and tried.returncode == 0 else {}

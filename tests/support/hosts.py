"""Hosts that take commands from Systems Manager: this machine, or a part of it that has hardly any processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

# The first process of the small host: it buries the dead, and ends when whoever has started it is gone.
FIRST = """
import os, select
while not select.select([0], [], [], 0.5)[0]:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError: pass
"""
hosts: list[subprocess.Popen[bytes]] = []  # whose standard input stays open as long as this process


def small(shell: str = "sh") -> dict[str, str]:
    """A host that sees its own processes only, where this machine lets us make one: as root, with PID namespaces.

    A capture reads every process that it sees, and those of all stacks of a session are hundreds.
    """
    first, enter = first_process(), shutil.which("nsenter")
    return {"Shell": f"{enter} --target {first} --pid --mount {shell}" if first and enter else shell}


@cache
def first_process() -> int | None:
    """One small host for all tests of this process."""
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "--pid", "--fork", "--mount-proc", "true"], capture_output=True, check=False).returncode:
        return None
    host = subprocess.Popen([unshare, "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", FIRST], stdin=subprocess.PIPE)
    hosts.append(host)
    children, deadline = Path(f"/proc/{host.pid}/task/{host.pid}/children"), time.monotonic() + 10
    while not (found := children.read_text(encoding="ascii").split()):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.05)
    time.sleep(0.2)  # until its /proc is its own
    return int(found[0])

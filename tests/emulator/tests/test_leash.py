"""The leash: no emulator outlives its starter."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def listens(port: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


def test_no_process_outlives_the_one_that_started_the_stack() -> None:
    script = "from support.stack import LocalStack; s = LocalStack().start(); print(s.moto.port, s.ministack.port, flush=True); input()"
    starter = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    ports = starter.stdout.readline().split()
    assert [listens(port) for port in ports] == [True, True]
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    deadline = time.monotonic() + 5
    while any(listens(port) for port in ports) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [listens(port) for port in ports] == [False, False]

"""A server on a leash: when its starter is gone, it ends with every process that it started.

The starter keeps the other end of the server's standard input. However the starter ends, the pipe closes.
"""

from __future__ import annotations

import os
import signal
import threading


def end_with_starter() -> None:
    """Only if the stack asks for it: a server started by hand may have no standard input at all."""
    if os.environ.pop("EMULATOR_LEASH", None):
        threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    while os.read(0, 1):
        pass
    leads_its_group = os.getpgrp() == os.getpid()
    os.killpg(0, signal.SIGKILL) if leads_its_group else os.kill(os.getpid(), signal.SIGKILL)

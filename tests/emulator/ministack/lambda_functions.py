"""Lambda: which process runs which invocation, noted for the doors (see invocations.py).

MINISTACK_INVOCATIONS is the file; moto gets the same as MOTO_INVOCATIONS. Tested in tests/emulator/tests/test_faults.py.
"""

from __future__ import annotations

import json
from typing import Any

from ministack.core.lambda_runtime import ProvidedWorker

from emulator.invocations import Invocation, Invocations


def note_invocations(invocations: Invocations) -> None:
    """A worker's process may be started by the invocation itself: either way it is known before it gets the event."""
    upstream_invoke, upstream_spawn = ProvidedWorker.invoke, ProvidedWorker._spawn

    def note(worker: Any) -> None:
        trace, event = getattr(worker, "_under_way", (None, None))
        if trace and worker._proc is not None:
            root = trace.split(";")[0].removeprefix("Root=")
            invocations.note(Invocation(root, worker.func_name, json.dumps(event), worker._proc.pid))

    def invoke(self: Any, event: Any, request_id: str, **more: Any) -> Any:
        self._under_way = (more.get("trace_id"), event)
        note(self)
        return upstream_invoke(self, event, request_id, **more)

    def spawn(self: Any, *args: Any, **more: Any) -> None:
        upstream_spawn(self, *args, **more)
        note(self)

    ProvidedWorker.invoke, ProvidedWorker._spawn = invoke, spawn

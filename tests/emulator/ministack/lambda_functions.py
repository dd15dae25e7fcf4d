"""Lambda: the functions' processes."""

from __future__ import annotations

import json
import os
from typing import Any

from ministack.core.lambda_runtime import ProvidedWorker
from ministack.services import lambda_svc

from emulator.invocations import Invocation, Invocations
from emulator.patches import instrument


@instrument
def noted_invocations() -> None:
    """Each invocation of a function is noted before its process gets the event, so that the doors know who calls.

    The invocation itself may start the process. moto's door reads the same file.
    """
    invocations = Invocations(os.environ.get("MINISTACK_INVOCATIONS"))
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


@instrument
def names_of_callers() -> None:
    """A function's calls carry the function's name, by the SDKs' own setting for an application id."""
    upstream = lambda_svc._provided_worker_env

    def environment(config: dict[str, Any], *args: Any) -> dict[str, str]:
        variables = upstream(config, *args)
        variables.setdefault("AWS_SDK_UA_APP_ID", config.get("FunctionName", "")[:50])
        return variables

    lambda_svc._provided_worker_env = environment

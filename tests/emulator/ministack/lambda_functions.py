"""Lambda: the functions' processes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import zipfile
from pathlib import Path
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


@instrument
def shared_code() -> None:
    """A function's code is extracted once for all stacks of this machine, which only read it.

    Each would otherwise write 500 MB for itself, and whatever hashes the programs that run, as a capture does, would read them
    all. Without MINISTACK_CODE, the folder to share, each has its own.
    """
    upstream, folder = lambda_svc._provided_runtime_code_dir, os.environ.get("MINISTACK_CODE")

    def code_dir(code_zip: bytes) -> str:
        if folder is None:
            return upstream(code_zip)
        place = Path(folder, hashlib.sha256(code_zip).hexdigest())
        with lambda_svc._provided_code_lock:  # no process may be started while a program is open for writing
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                new = Path(tempfile.mkdtemp(dir=folder))
                with zipfile.ZipFile(io.BytesIO(code_zip)) as archive:
                    lambda_svc._extract_zip_preserving_mode(archive, str(new))
                new.chmod(0o755)
                (new / "bootstrap").chmod(0o755)
                try:
                    new.rename(place)
                except OSError:  # another stack was quicker
                    pass
        return str(place)

    lambda_svc._provided_runtime_code_dir = code_dir

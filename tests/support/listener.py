"""A Lambda function for tests of what reaches a function: it keeps the events that it is invoked with."""

from __future__ import annotations

import io
import json
import time
import uuid
import zipfile
from typing import Any

from .stack import LocalStack, StackError

ROLE = "arn:aws:iam::123456789012:role/anything"
CODE = """
import json, os, time

def handler(event, context):
    path = f"{os.environ['FOLDER']}/{time.time_ns()}"
    with open(path, "w") as file:
        json.dump(event, file)
    os.rename(path, path + ".json")
    if event.get("Fail"):
        raise RuntimeError("as the event asks")
    return {"AccessKey": os.environ["AWS_ACCESS_KEY_ID"]}
"""


class Listener:
    """An event with `Fail` makes the function fail, after it was kept; ministack names any such error Runtime.HandlerError."""

    def __init__(self, stack: LocalStack) -> None:
        self.name = f"listener-{uuid.uuid4().hex[:8]}"
        self._folder = stack.folder / self.name
        self._folder.mkdir()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("index.py", CODE)
        created = stack.client("lambda").create_function(
            FunctionName=self.name, Runtime="python3.11", Role=ROLE, Handler="index.handler", Code={"ZipFile": packed.getvalue()},
            Environment={"Variables": {"FOLDER": str(self._folder)}},
        )  # fmt: skip
        self.arn = created["FunctionArn"]

    def events(self) -> list[Any]:
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self._folder.glob("*.json"))]

    def wait(self, count: int = 1, seconds: float = 10) -> list[Any]:
        """All events so far, once there are `count` of them."""
        deadline = time.monotonic() + seconds
        while len(events := self.events()) < count:
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} has {len(events)} of {count} events after {seconds:.0f} s")
            time.sleep(0.05)
        return events

"""Systems Manager's Run Command: managed hosts, and a stand-in for their agent that runs a document's script.

MOTO_SSM_HOSTS names a JSON file that a test writes (LocalStack.manage): for each instance id, with these defaults,

    {"Platform": "Linux", "Ping": "Online", "Agent": "3.3.2746.0", "Behaviour": "run", "Shell": "sh", "Path": null}

`Behaviour` is how the host takes a command: `run` runs the document's script in a clean environment, `delayed` runs it after two
seconds of status Delayed, `undeliverable`, `terminated` and `access-denied` never run it, `lost` never answers. `Shell` runs the
script ("busybox sh" for one), `Path` is its PATH. Only an agent from 3.3.2746.0 on turns parameters into environment variables.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import yaml
from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ssm.exceptions import InvalidDocument
from moto.ssm.models import Command, SimpleSystemManagerBackend
from moto.ssm.responses import SimpleSystemManagerResponse

from emulator.patches import patch

DEFAULTS = {"Platform": "Linux", "Ping": "Online", "Agent": "3.3.2746.0", "Behaviour": "run", "Shell": "sh", "Path": None}
NEVER = {"undeliverable": "Undeliverable", "terminated": "Terminated", "access-denied": "AccessDenied"}
FINAL = {"Success", "Failed", "Cancelled", "TimedOut", "Undeliverable", "Terminated", "AccessDenied", "DeliveryTimedOut", "ExecutionTimedOut"}
VISIBLE_AFTER = 0.2  # seconds until a command that was sent has an invocation
STDOUT, STDERR = 24_000, 8_000
VARIABLES_SINCE = (3, 3, 2746, 0)


def hosts() -> dict[str, dict[str, Any]]:
    path = Path(os.environ.get("MOTO_SSM_HOSTS") or "/nonexistent")
    named = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {instance: {**DEFAULTS, **given} for instance, given in named.items()}


class Run:
    """One command on one host, from delivery to end."""

    def __init__(self, command: Command, instance: str, host: dict[str, Any], content: dict[str, Any]) -> None:
        self.command, self.instance, self.host, self.content = command, instance, host, content
        self.sent, self.status, self.output, self.errors, self.code = time.monotonic(), "Pending", "", "", -1
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._live, daemon=True).start()

    def _live(self) -> None:
        behaviour = self.host["Behaviour"]
        if behaviour in NEVER:
            time.sleep(0.3)
            return self._become(NEVER[behaviour])
        if behaviour == "delayed":
            self._become("Delayed")
            time.sleep(2)
        if behaviour == "lost":
            time.sleep(self.command.timeout_seconds)
            return self._become("DeliveryTimedOut")
        self._execute()

    def _become(self, status: str) -> None:
        with self._lock:
            if self.status not in FINAL:
                self.status = status

    def _execute(self) -> None:
        for step in self.content["mainSteps"]:
            platform = step.get("precondition", {}).get("StringEquals", ["platformType", self.host["Platform"]])[1]
            if platform == self.host["Platform"] and step["action"] == "aws:runShellScript":
                return self._run_script(step["inputs"])
        self._become("Failed")  # nothing here runs PowerShell

    def _run_script(self, inputs: dict[str, Any]) -> None:
        values = {name: self.command.parameters.get(name, [one.get("default")])[0] for name, one in self.content["parameters"].items()}
        new_agent = tuple(int(part) for part in self.host["Agent"].split(".")) >= VARIABLES_SINCE
        variables = {name for name, one in self.content["parameters"].items() if new_agent and one.get("interpolationType") == "ENV_VAR"}
        replaced = {name: f"${{SSM_{name}}}" if name in variables else value for name, value in values.items()}

        def interpolated(text: str) -> str:
            return re.sub(r"\{\{ *(\w+) *\}\}", lambda found: str(replaced[found[1]]), text)

        with tempfile.TemporaryDirectory(prefix="ssm-") as scratch:
            script = Path(scratch) / "_script.sh"
            script.write_text(interpolated("\n".join(inputs["runCommand"])), encoding="utf-8")
            environment = {"PATH": self.host["Path"] or os.environ["PATH"], **{f"SSM_{name}": str(values[name]) for name in variables}}
            with self._lock:
                if self.status in FINAL:
                    return
                self.status = "InProgress"
                self._process = subprocess.Popen(
                    [*self.host["Shell"].split(), str(script)], cwd=scratch, env=environment, stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                )  # fmt: skip
            try:
                out, err = self._process.communicate(timeout=float(interpolated(str(inputs["timeoutSeconds"]))))
                ended = "Success" if self._process.returncode == 0 else "Failed"
            except subprocess.TimeoutExpired:
                self._kill()
                out, err = self._process.communicate()
                ended = "ExecutionTimedOut"
        self.output, self.errors = out.decode("utf-8", "replace")[:STDOUT], err.decode("utf-8", "replace")[:STDERR]
        self.code = self._process.returncode
        self._become(ended)

    def _kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def cancel(self) -> None:
        self._become("Cancelled")
        if self._process:
            self._kill()


_runs: dict[tuple[str, str], Run] = {}  # by command and instance


@patch(
    "systems-manager/latest/APIReference/API_DescribeInstanceInformation.html", upstream=("getmoto/moto:IMPLEMENTATION_COVERAGE.md",)
)
def managed_hosts() -> None:
    """`DescribeInstanceInformation` lists the hosts whose agent has registered.

    moto does not have the call.
    """

    def describe_instance_information(self: Any) -> ActionResult:
        wanted = [set(one.get("Values", one.get("valueSet", []))) for one in self._get_param("Filters", []) or []]
        found = [
            {"InstanceId": instance, "PingStatus": host["Ping"], "PlatformType": host["Platform"], "AgentVersion": host["Agent"],
             "LastPingDateTime": utcnow(), "ResourceType": "EC2Instance"}
            for instance, host in hosts().items() if all(instance in values for values in wanted)
        ]  # fmt: skip
        return ActionResult({"InstanceInformationList": found})

    SimpleSystemManagerResponse.describe_instance_information = describe_instance_information


@patch("systems-manager/latest/APIReference/API_SendCommand.html", upstream=("getmoto/moto#1484",))
def send() -> None:
    """`SendCommand` needs an existing document, managed hosts and parameters that the document allows; the hosts then run it.

    moto accepts everything, runs nothing, and without targets takes every instance of the account.
    """
    upstream = SimpleSystemManagerBackend.send_command

    def send_command(self: Any, *, document_name: str, instance_ids: list[str], parameters: dict[str, list[str]], **more: Any) -> Command:
        if document_name not in self._documents:
            raise InvalidDocument("Document with name " + str(document_name) + " does not exist.")
        known = hosts()
        if not all(instance in known for instance in instance_ids):
            raise JsonRESTError("InvalidInstanceId", f"Instances {instance_ids} not in a valid state for account {self.account_id}")
        if len(more.get("comment") or "") > 100:
            raise JsonRESTError("ValidationException", "Comment has more than 100 characters")
        content = yaml.safe_load(self._documents[document_name].find().content)
        check_parameters(content["parameters"], parameters)
        # Without targets, moto would name every instance of the account.
        command = upstream(self, document_name=document_name, instance_ids=list(instance_ids), parameters=parameters, **more)
        command.instance_ids = list(instance_ids)
        for instance in instance_ids:
            _runs[command.command_id, instance] = Run(command, instance, known[instance], content)
        return command

    SimpleSystemManagerBackend.send_command = send_command


def check_parameters(allowed: dict[str, Any], given: dict[str, list[str]]) -> None:
    for name, one in allowed.items():
        if name not in given and "default" not in one:
            raise JsonRESTError("InvalidParameters", f"Parameter {name} requires a value")
    for name, values in given.items():
        pattern = allowed.get(name, {}).get("allowedPattern")
        if name not in allowed or (pattern and not all(re.search(pattern, value) for value in values)):
            raise JsonRESTError("InvalidParameters", f"Parameter {name} is unknown to the document, or its value does not match {pattern}")


@patch(
    "systems-manager/latest/APIReference/API_GetCommandInvocation.html", "systems-manager/latest/userguide/monitor-commands.html",
    upstream=("getmoto/moto#1768",),
)  # fmt: skip
def invocations() -> None:
    """`GetCommandInvocation` knows an invocation a moment after the command was sent, and returns the host's status and output.

    moto's invocations are there at once, and all of them succeed.
    """

    def get_command_invocation(self: Any, command_id: str, instance_id: str, plugin_name: str | None) -> dict[str, Any]:
        run = _runs.get((command_id, instance_id))
        if run is None or time.monotonic() - run.sent < VISIBLE_AFTER:
            raise JsonRESTError("InvocationDoesNotExist", "")
        ended = run.status in FINAL
        words = {"InProgress": "In Progress", "ExecutionTimedOut": "Execution Timed Out", "DeliveryTimedOut": "Delivery Timed Out"}
        short = {"ExecutionTimedOut": "TimedOut", "DeliveryTimedOut": "TimedOut", "Undeliverable": "Failed", "Terminated": "Failed", "AccessDenied": "Failed"}
        return {
            "CommandId": command_id, "InstanceId": instance_id, "DocumentName": run.command.document_name, "Comment": run.command.comment,
            "Status": short.get(run.status, run.status), "StatusDetails": words.get(run.status, run.status), "ResponseCode": run.code,
            "StandardOutputContent": run.output if ended else "", "StandardErrorContent": run.errors if ended else "",
        }  # fmt: skip

    SimpleSystemManagerBackend.get_command_invocation = get_command_invocation


@patch("systems-manager/latest/APIReference/API_CancelCommand.html", upstream=("getmoto/moto:IMPLEMENTATION_COVERAGE.md",))
def cancel() -> None:
    """`CancelCommand` ends an invocation that has not ended yet.

    moto does not have the call.
    """

    def cancel_command(self: Any) -> ActionResult:
        command = self.ssm_backend.get_command_by_id(self._get_param("CommandId"))
        for instance in self._get_param("InstanceIds", []) or command.instance_ids:
            _runs[command.command_id, instance].cancel()
        return ActionResult({})

    SimpleSystemManagerResponse.cancel_command = cancel_command

"""The capture of a running host: the deployed function, the documents' own scripts run for real, uploads to the local S3.

The function is called as the workflow calls it, until its answer is no longer InProgress. A stand-in for Systems Manager's agent
(emulator/moto/ssm.py) runs the scripts on this machine. What a host can do wrong, programs in front of its PATH do.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

import boto3
import pytest
import yaml

from support.hosts import small
from support.member import deploy_member_role
from support.stack import ACCOUNT, OURSELVES, PROJECT, LocalStack
from support.template import Loader, template

FUNCTION = "cordon-drill-capture-volatile"
DOCUMENTS = PROJECT / "templates" / "capture-documents.yaml"
NOW = {"Mode": "CaptureFirst"}
MEMORY = {"Mode": "CaptureFirst", "Memory": True}


class Host:
    """A host that Systems Manager manages, and the case that it is captured for; `whole` is this machine with all its processes."""

    _number = 0

    def __init__(self, stack: LocalStack, folder: Path, *, whole: bool = False, **host: Any) -> None:
        Host._number += 1
        self.stack, self.instance = stack, f"i-{Host._number + int(time.time() * 1000) % 16**12:017x}"
        self.case, self.region, self.account = f"{self.instance}-20261121T030007Z", stack.region, ACCOUNT
        self.tools = folder / self.instance
        self.tools.mkdir()
        stack.manage(self.instance, **{"Path": f"{self.tools}:{os.environ['PATH']}", **({} if whole else small()), **host})

    def tool(self, name: str, text: str) -> None:
        """A program of the host's own, in front of the machine's."""
        path = self.tools / name
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)

    def call(self, capture: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        event = {"AccountId": self.account, "Region": self.region, "InstanceId": self.instance, "CaseId": self.case, "Capture": capture or NOW}
        answer = self.stack.client("lambda").invoke(FunctionName=FUNCTION, Payload=json.dumps({**event, **more}))
        outcome = json.load(answer["Payload"])
        return {"Status": outcome["errorType"], "Reason": outcome["errorMessage"]} if "FunctionError" in answer else outcome

    def captured(self, capture: dict[str, Any] | None = None, *, seconds: float = 120, **more: Any) -> dict[str, Any]:
        """The answer that ends the capture."""
        deadline = time.monotonic() + seconds
        while (outcome := self.call(capture, **more))["Status"] == "InProgress":
            assert time.monotonic() < deadline, outcome
            time.sleep(0.5)
        return outcome

    @property
    def prefix(self) -> str:
        return f"cases/{self.account}/{self.region}/{self.case}/capture/"

    def objects(self) -> dict[str, bytes]:
        s3, bucket = self.stack.client("s3"), self.stack.outputs["EvidenceBucketName"]
        keys = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket, Prefix=self.prefix).get("Contents", [])]
        return {key.removeprefix(self.prefix): s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def summary(self) -> dict[str, Any]:
        return json.loads(self.objects()["summary.json"])

    def statuses(self) -> dict[str, str]:
        return {one["Name"]: one["Status"] for one in self.summary()["Files"]}

    def files(self) -> dict[str, bytes]:
        with tarfile.open(fileobj=io.BytesIO(self.objects()["triage.tar.gz"])) as archive:
            return {one.name.removeprefix("./"): archive.extractfile(one).read() for one in archive.getmembers() if one.isfile()}

    def commands(self) -> list[dict[str, Any]]:
        return self.stack.client("ssm").list_commands(InstanceId=self.instance)["Commands"]

    def ledger(self) -> dict[str, dict[str, Any]]:
        item = self.stack.client("dynamodb").get_item(
            TableName=self.stack.outputs["CaseTableName"],
            Key={"Instance": {"S": f"{self.account}/{self.region}/{self.instance}"}, "Record": {"S": f"journal#{self.case}#evidence"}},
        ).get("Item", {})  # fmt: skip
        entries = [json.loads(value["S"]) for name, value in item.items() if name not in ("Instance", "Record")]
        return {entry["Key"].removeprefix(self.prefix): entry for entry in entries}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- What arrives ------------------------------------------------------------------------------------------------


def test_a_whole_capture_arrives_with_the_hashes_that_the_host_says(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path, whole=True)
    outcome = host.captured()
    assert outcome["Status"] == "Done", outcome
    objects, summary, files = host.objects(), host.summary(), host.files()
    assert set(objects) == {"triage.tar.gz", "summary.json"}
    assert summary["Archive"] == {"Name": "triage.tar.gz", "Size": len(objects["triage.tar.gz"]), "Sha256": sha256(objects["triage.tar.gz"])}
    assert {one["Name"]: (one["Size"], one["Sha256"]) for one in summary["Files"]} == {name: (len(data), sha256(data)) for name, data in files.items()}
    assert [one["Name"] for one in summary["Files"]] == sorted(files), "in the order of volatility"
    assert f"PPid:\t{os.getpid()}".encode() in files["12-processes.txt"], "this test's children are processes of the host"
    assert b"MemTotal:" in files["90-memory.txt"] and b" / " in files["41-mounts.txt"]


def test_what_has_arrived_is_in_the_ledger_by_the_functions_own_hash_and_under_object_lock(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path)
    host.captured(Execution="arn:aws:states:ap-northeast-1:123456789012:execution:cordon:1")
    ledger, objects = host.ledger(), host.objects()
    assert set(ledger) == set(objects)
    for name, data in objects.items():
        entry = ledger[name]
        assert (entry["Sha256"], entry["Size"], entry["Resource"]) == (sha256(data), len(data), host.instance)
        assert "RequestId" not in entry, "the host has put it there, and S3 tells the function nothing of that request"
        assert entry["Function"] == FUNCTION and entry["Execution"].endswith(":execution:cordon:1")
        head = stack.client("s3").head_object(Bucket=entry["Bucket"], Key=entry["Key"])
        assert (head["VersionId"], head["ObjectLockMode"]) == (entry["VersionId"], "GOVERNANCE")


def test_a_second_call_after_the_end_says_the_same_and_asks_the_host_for_nothing(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path)
    first = host.captured()
    since = time.time()
    assert host.call() == first
    assert {call["Service"] for call in stack.calls(since)} <= {"dynamodb"}
    assert len(host.commands()) == 1


def folders(host: Host) -> Callable[[], list[Path]]:
    """The private folders that the script makes on this host from now on; another worker's captures make theirs here too."""
    host.tool("mktemp", f'made=$({shutil.which("mktemp")} "$@") || exit; echo "$made" >>"{host.tools}/folders"; echo "$made"')
    return lambda: [Path(line) for line in (host.tools / "folders").read_text(encoding="utf-8").splitlines()]


def test_nothing_is_left_on_the_host(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path)
    made = folders(host)
    host.captured()
    assert made() and not any(folder.exists() for folder in made())


# --- Hosts of every kind -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
def test_the_script_runs_under_every_shell_that_a_host_may_have(stack: LocalStack, tmp_path: Path, shell: str) -> None:
    if not shutil.which(shell.split()[0]):
        pytest.skip(f"{shell} is not on this machine")
    host = Host(stack, tmp_path, **small(shell))
    outcome = host.captured()
    assert outcome["Status"] == "Done", outcome
    assert host.statuses()["12-processes.txt"] == "ok"


NEEDED = ("sh", "cat", "chmod", "date", "grep", "gzip", "ls", "mkdir", "mkfifo", "mktemp", "readlink", "rm", "sleep", "tail", "tar", "tr", "wc")


@pytest.mark.parametrize("tools", [("sha256sum", "md5sum", "base64", "curl"), ("openssl", "curl"), ("openssl", "wget"), ("python3",)])
def test_a_host_with_few_tools_is_captured_and_what_was_missing_is_recorded(stack: LocalStack, tmp_path: Path, tools: tuple[str, ...]) -> None:
    host = Host(stack, tmp_path, Path=str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    real = {tool: subprocess.run(["python3", "-c", "import sys; print(sys.executable)"], capture_output=True, text=True, check=True).stdout.strip()
            if tool == "python3" else shutil.which(tool) for tool in NEEDED + tools}  # fmt: skip
    for tool, path in real.items():
        (tmp_path / "bin" / tool).symlink_to(path)
    outcome = host.captured()
    assert outcome["Status"] == "Done", outcome
    statuses = host.statuses()
    assert (statuses["20-connections.txt"], statuses["22-network-files.txt"]) == ("missing", "missing")
    assert (statuses["24-kernel-sockets.txt"], statuses["12-processes.txt"]) == ("ok", "ok"), "the kernel tells without any tool"


@pytest.mark.parametrize("missing, words", [("gzip", "no tar and gzip"), ("uploaders", "neither curl nor Python nor a wget")])
def test_a_host_that_lacks_what_nothing_can_stand_in_for_is_said_so(stack: LocalStack, tmp_path: Path, missing: str, words: str) -> None:
    host = Host(stack, tmp_path, Path=str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    for tool in {*NEEDED, "openssl", "curl"} - ({"gzip"} if missing == "gzip" else {"curl"}):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    outcome = host.captured()
    assert outcome["Status"] == "Unsupported" and words in outcome["Reason"], outcome


def test_an_agent_that_knows_no_variables_gets_the_parameters_all_the_same(stack: LocalStack, tmp_path: Path) -> None:
    assert Host(stack, tmp_path, Agent="3.2.582.0").captured()["Status"] == "Done"


def test_a_process_named_to_break_the_script_breaks_nothing(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path, whole=True)
    mark = tmp_path / "broken"
    name = f"$(touch {mark})`touch {mark}`';touch {mark};\"\n== 1\ncordon problem x\n\x1b[2J\"}}}}"
    # The name of its argument, and of the program itself.
    program = tmp_path / "a';touch broken;$(id)\n{{ Part }}"
    shutil.copy(shutil.which("sleep"), program)
    process = subprocess.Popen([name, "100"], executable=program)
    try:
        outcome = host.captured()
        files = host.files()
    finally:
        process.kill()
        process.wait()
    assert outcome["Status"] == "Done" and not mark.exists()
    assert name.encode().replace(b"\0", b" ") in files["12-processes.txt"], "as it is, in a file"
    json.loads(host.objects()["summary.json"])


def test_a_command_that_hangs_and_one_that_never_stops_writing_are_cut_off_and_the_rest_is_captured(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path)
    host.tool("lsblk", "trap '' TERM; sleep 1000 & wait; sleep 1000")
    host.tool("lsmod", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done")
    outcome = host.captured()
    assert outcome["Status"] == "Done", outcome
    statuses = host.statuses()
    assert (statuses["42-space.txt"], statuses["40-kernel-modules.txt"], statuses["90-memory.txt"]) == ("timeout", "truncated", "ok")
    assert len(host.files()["40-kernel-modules.txt"]) <= 8 * 1024 * 1024
    left = subprocess.run(["pgrep", "-f", f"{host.tools}/lsblk"], capture_output=True, check=False)
    assert left.returncode == 1, "the command that hung is gone, and what it started"


# --- Hosts that cannot be captured -------------------------------------------------------------------------------


def test_where_no_capture_was_asked_for_there_is_nothing_to_do(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path)
    since = time.time()
    assert host.call(Capture=None)["Status"] == "NotApplicable"
    assert not [call for call in stack.calls(since) if call["Service"] == "ssm"]


def test_a_host_that_is_not_managed_is_an_answer(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path)
    host.instance, host.case = "i-00000000000000bad", "i-00000000000000bad-20261121T030007Z"
    outcome = host.call()
    assert outcome["Status"] == "Unsupported" and "not managed by Systems Manager" in outcome["Reason"]


@pytest.mark.parametrize("ping", ["ConnectionLost", "Inactive"])
def test_a_host_that_is_offline_is_an_answer_at_once_and_can_be_captured_later(stack: LocalStack, tmp_path: Path, ping: str) -> None:
    host = Host(stack, tmp_path, Ping=ping)
    outcome = host.call()
    assert outcome["Status"] == "Unsupported" and ping in outcome["Reason"]
    assert host.commands() == []
    stack.manage(host.instance)
    assert host.captured()["Status"] == "Done"


def test_an_isolated_host_without_a_window_is_not_waited_for(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path)
    outcome = host.call({"Mode": "IsolateFirst"})
    assert outcome["Status"] == "Unsupported" and "no window was opened" in outcome["Reason"]
    # A window was wanted; this host is on no group that has one, as where its VPC has no endpoints.
    outcome = host.call({"Mode": "IsolateFirst"}, CaptureWindow=True)
    assert outcome["Status"] == "Unsupported" and "isolate-network says what is missing" in outcome["Reason"]
    assert host.commands() == []


def test_a_region_without_the_documents_is_an_answer_that_says_what_to_deploy(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path)
    outcome = host.call(Region="eu-west-1")
    assert outcome["Status"] == "Unsupported", outcome
    assert all(word in outcome["Reason"] for word in ("cordon-drill-capture-volatile-linux", "eu-west-1", ACCOUNT, "capture-documents.yaml"))


def test_a_host_of_a_member_account_is_captured_once_its_owner_has_deployed_the_documents(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path)
    host.account = "567890123456"
    deploy_member_role(stack, host.account, StateMachineName="cordon-drill")
    outcome = host.call()
    assert outcome["Status"] == "Unsupported" and host.account in outcome["Reason"] and "capture-documents.yaml" in outcome["Reason"]
    other = Host(stack, tmp_path)
    other.account = host.account
    cloudformation = boto3.client(
        "cloudformation", endpoint_url=stack.moto.endpoint, region_name=stack.region, aws_access_key_id=host.account,
        aws_secret_access_key="test", config=boto3.session.Config(user_agent_appid=OURSELVES),
    )  # fmt: skip
    given = [{"ParameterKey": "StateMachineName", "ParameterValue": "cordon-drill"}]
    cloudformation.create_stack(StackName="capture", TemplateBody=DOCUMENTS.read_text("utf-8"), Parameters=given)
    since = time.time()
    outcome = other.captured()
    assert outcome["Status"] == "Done", outcome
    sessions = {call["Account"] for call in stack.calls(since) if call["Service"] == "ssm"}
    assert sessions == {host.account}, "by the member role"
    assert set(other.objects()) == {"triage.tar.gz", "summary.json"}, "in Cordon's own bucket"


def test_a_dry_run_sends_nothing(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path)
    outcome = host.call(DryRun=True)
    assert outcome["Status"] == "Planned" and "cordon-drill-capture-volatile-linux" in outcome["Reason"]
    assert host.commands() == [] and host.objects() == {}


@pytest.mark.parametrize(
    "behaviour, words",
    [("undeliverable", "could not be delivered"), ("terminated", "(Terminated)"), ("access-denied", "(AccessDenied)")],
)
def test_a_command_that_never_reaches_the_host_ends_and_says_which_way(stack: LocalStack, tmp_path: Path, behaviour: str, words: str) -> None:
    outcome = Host(stack, tmp_path, Behaviour=behaviour).captured()
    assert outcome["Status"] == "Failed" and words in outcome["Reason"] and "triage.tar.gz did not arrive" in outcome["Reason"]


def test_a_command_that_is_delayed_is_waited_for(stack: LocalStack, tmp_path: Path) -> None:
    assert Host(stack, tmp_path, Behaviour="delayed").captured()["Status"] == "Done"


# --- The deadline ------------------------------------------------------------------------------------------------


def test_a_host_that_never_takes_the_command_is_given_up_at_the_deadline_and_the_command_cancelled(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path, Behaviour="lost")
    with stack.reconfigured("capture-volatile", CAPTURE_DEADLINE="5"):
        began = time.monotonic()
        outcome = host.captured()
    assert outcome["Status"] == "Failed" and "given up 5 s after the first request" in outcome["Reason"], outcome
    assert "cancelled" in outcome["Reason"] and time.monotonic() - began < 20
    command = host.commands()[0]["CommandId"]
    assert stack.client("ssm").get_command_invocation(CommandId=command, InstanceId=host.instance)["StatusDetails"] == "Cancelled"
    assert host.call() == outcome, "what was given up stays given up"


def test_what_arrived_before_the_deadline_is_kept_and_entered_and_what_did_not_is_named(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path)
    made = folders(host)
    host.tool("curl", f'[ -e "{tmp_path}/once" ] && sleep 1000\n: >"{tmp_path}/once"\nexec {shutil.which("curl")} "$@"')
    with stack.reconfigured("capture-volatile", CAPTURE_DEADLINE="25"):
        outcome = host.captured()
    assert outcome["Status"] == "Failed", outcome
    assert all(words in outcome["Reason"] for words in ("given up", "cancelled", "summary.json did not arrive", "triage.tar.gz has"))
    assert set(host.ledger()) == {"triage.tar.gz"}
    assert host.ledger()["triage.tar.gz"]["Sha256"] == sha256(host.objects()["triage.tar.gz"])
    assert subprocess.run(["pgrep", "-f", f"{host.tools}/curl"], capture_output=True, check=False).returncode == 1, "it was cancelled"
    deadline = time.monotonic() + 10
    while any(folder.exists() for folder in made()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert made() and not any(folder.exists() for folder in made()), "and nothing is left of it"


# --- Hosts that lie ----------------------------------------------------------------------------------------------


def test_a_host_that_lies_about_a_hash_is_found_out_and_what_is_there_counts(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path)
    host.tool("sha256sum", f"cat >/dev/null; echo {'0' * 64}  -")
    outcome = host.captured()
    assert outcome["Status"] == "Failed" and "the host lies" in outcome["Reason"], outcome
    assert host.ledger()["triage.tar.gz"]["Sha256"] == sha256(host.objects()["triage.tar.gz"])


def test_an_object_that_was_cut_short_on_its_way_is_found_out(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path)
    real = shutil.which("curl")
    # Puts the first thousand bytes of the file where the file belongs, with a checksum that fits them.
    host.tool("curl", f"""
for word in "$@"; do case $before in -T) file=$word ;; esac; before=$word; done
[ "${{file##*/}}" = triage.tar.gz ] || exec {real} "$@"
head -c 1000 "$file" >"{tmp_path}/short"
md5=$(openssl dgst -md5 -binary "{tmp_path}/short" | openssl enc -base64)
exec {real} -s -o /dev/null -w '%{{http_code}}' -H 'If-None-Match: *' -H "Content-MD5: $md5" -T "{tmp_path}/short" "$word"
""")
    outcome = host.captured()
    assert outcome["Status"] == "Failed" and "truncated" in outcome["Reason"], outcome
    assert host.ledger()["triage.tar.gz"]["Size"] == 1000


def test_words_of_the_hosts_own_never_get_into_the_answer(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path)
    host.tool("date", "echo '<script>alert(1)</script>' >/proc/$PPID/fd/1; exec /bin/date \"$@\"")
    outcome = host.captured()
    assert outcome["Status"] == "Failed" and "counts for nothing" in outcome["Reason"], outcome
    assert "script>" not in outcome["Reason"]


# --- The URLs ----------------------------------------------------------------------------------------------------


def put(url: str, data: bytes, method: str = "PUT", **headers: str) -> int:
    request = urllib.request.Request(url, data=data if method == "PUT" else None, method=method)
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_an_upload_url_writes_one_key_once_and_can_do_nothing_else(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path, Behaviour="lost")
    host.call()
    url = host.commands()[0]["Parameters"]["TriageUrl"][0]
    once = {"If_None_Match": "*"}
    assert put(url, b"x") == 403, "the condition is signed and cannot be left out"
    assert put(url.replace("triage.tar.gz", "other.tar.gz"), b"x", **once) == 403, "another key"
    assert put(url.replace(host.case, "another-case"), b"x", **once) == 403, "another case"
    assert put(url, b"", method="GET") == 403 and put(url, b"", method="DELETE", **once) == 403
    assert put(url, b"x", **once) == 200
    assert put(url, b"y", **once) == 412, "once"
    assert host.objects() == {"triage.tar.gz": b"x"}


def test_the_host_is_handed_no_credentials_and_nothing_to_read_with(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path)
    host.captured()
    (command,) = host.commands()
    assert set(command["Parameters"]) == {"Part", "Seconds", "Timeout", "TriageUrl", "SummaryUrl"}
    assert len(command["Comment"]) <= 100


# --- Answers that are lost ---------------------------------------------------------------------------------------


def test_after_a_lost_answer_of_send_command_the_command_is_found_and_no_second_one_is_sent(stack: LocalStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path)
    stack.inject({"Service": "ssm", "Action": "SendCommand", "Code": "InternalServerError", "Status": 500, "Times": 1, "Executed": True})
    assert host.call()["Status"] == "Unavailable", "the workflow calls again"
    outcome = host.captured()
    assert outcome["Status"] == "Done", outcome
    assert len(host.commands()) == 1


def test_two_calls_at_once_send_one_command(stack: LocalStack, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    host = Host(stack, tmp_path)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: host.call()["Status"], range(2)))
    assert answers == ["InProgress", "InProgress"]
    assert host.captured()["Status"] == "Done"
    assert len(host.commands()) == 1


# --- The memory --------------------------------------------------------------------------------------------------


@contextmanager
def memory_tool(stack: LocalStack, text: bytes, *, sha: str | None = None, upload: bool = True) -> Iterator[None]:
    """A tool as an operator puts it into the bucket; it writes the image to the path that it is given."""
    key = f"tools/stand-in-{time.time_ns()}"
    if upload:
        stack.client("s3").put_object(Bucket=stack.outputs["EvidenceBucketName"], Key=key, Body=text, ChecksumAlgorithm="SHA256")
    with stack.reconfigured("capture-volatile", MEMORY_TOOL_KEY=key, MEMORY_TOOL_SHA256=sha or sha256(text)):
        yield


def tool_writing(megabytes: int, afterwards: str = "") -> bytes:
    return f'#!/bin/sh\ndd if=/dev/zero of="$1" bs=1048576 count={megabytes} 2>/dev/null\nprintf end >>"$1"\n{afterwards}\n'.encode()


@pytest.mark.skipif(os.geteuid() != 0, reason="memory is read as root")
class TestMemory:
    def test_an_image_is_streamed_in_parts_and_arrives_whole(self, stack: LocalStack, tmp_path: Path) -> None:
        host = Host(stack, tmp_path)
        with memory_tool(stack, tool_writing(70)):
            outcome = host.captured(MEMORY)
        assert outcome["Status"] == "Done", outcome
        image = bytes(70 * 1024 * 1024) + b"end"
        entry = host.ledger()["memory.image"]
        assert (entry["Size"], entry["Sha256"]) == (len(image), sha256(image))
        assert sha256(host.objects()["memory.image"]) == entry["Sha256"]
        head = stack.client("s3").head_object(Bucket=entry["Bucket"], Key=entry["Key"])
        assert head["ETag"].strip('"').endswith("-2"), "two parts of 64 MiB at most"
        assert [command["Parameters"]["Part"] for command in host.commands()] == [["triage"], ["memory"]], "the triage first"
        assert any(name.startswith("memory-plan-") for name in host.ledger()), "what the host was told is evidence too"

    def test_a_tool_with_another_hash_is_not_run(self, stack: LocalStack, tmp_path: Path) -> None:
        host = Host(stack, tmp_path)
        ran = tmp_path / "ran"
        with memory_tool(stack, f"#!/bin/sh\n: >{ran}\nprintf image >$1\n".encode(), sha="0" * 64):
            outcome = host.captured(MEMORY)
        assert outcome["Status"] == "Failed" and "was not run" in outcome["Reason"], outcome
        assert not ran.exists() and "memory.image" not in host.objects()
        assert {"triage.tar.gz", "summary.json"} <= set(host.ledger()), "the triage stands"

    def test_a_tool_that_is_not_in_the_bucket_is_said_so(self, stack: LocalStack, tmp_path: Path) -> None:
        with memory_tool(stack, b"x", upload=False):
            outcome = Host(stack, tmp_path).captured(MEMORY)
        assert outcome["Status"] == "Failed" and "could not be downloaded from MemoryToolKey" in outcome["Reason"], outcome

    def test_a_stack_without_a_tool_cannot_take_an_image(self, stack: LocalStack, tmp_path: Path) -> None:
        outcome = Host(stack, tmp_path).captured(MEMORY)
        assert outcome["Status"] == "Unsupported" and "MemoryToolKey" in outcome["Reason"], outcome
        assert "triage.tar.gz has" in outcome["Reason"]

    def test_a_tool_for_another_processor_is_unsupported_and_not_run(self, stack: LocalStack, tmp_path: Path) -> None:
        machine = b"\xb7\x00" if os.uname().machine == "x86_64" else b"\x3e\x00"
        with memory_tool(stack, b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + machine + bytes(44)):
            outcome = Host(stack, tmp_path).captured(MEMORY)
        assert outcome["Status"] == "Unsupported" and "not built for the host's processor" in outcome["Reason"], outcome

    def test_a_tool_that_fails_is_no_image(self, stack: LocalStack, tmp_path: Path) -> None:
        host = Host(stack, tmp_path)
        with memory_tool(stack, b"#!/bin/sh\nexit 3\n"):
            outcome = host.captured(MEMORY)
        assert outcome["Status"] == "Failed" and "the memory tool failed" in outcome["Reason"], outcome
        uploads = stack.client("s3").list_multipart_uploads(Bucket=stack.outputs["EvidenceBucketName"]).get("Uploads", [])
        assert not [one for one in uploads if host.case in one["Key"]], "no upload is left open"

    def test_an_image_that_the_deadline_cuts_off_is_kept_and_called_what_it_is(self, stack: LocalStack, tmp_path: Path) -> None:
        host = Host(stack, tmp_path)
        with memory_tool(stack, tool_writing(70, "sleep 1000")), stack.reconfigured("capture-volatile", CAPTURE_DEADLINE="45"):
            outcome = host.captured(MEMORY)
        assert outcome["Status"] == "Failed" and "memory.image has" in outcome["Reason"], outcome
        entry = host.ledger()["memory.image"]
        assert entry["Size"] >= 64 * 1024 * 1024 and sha256(host.objects()["memory.image"]) == entry["Sha256"]


# --- The documents -----------------------------------------------------------------------------------------------


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each document: its logical id and its content."""
    resources = yaml.load(DOCUMENTS.read_text(encoding="utf-8"), Loader)["Resources"]
    yield from ((id_, one["Properties"]["Content"]) for id_, one in resources.items() if one["Type"] == "AWS::SSM::Document")


def scripts() -> dict[str, str]:
    """The two scripts, which stand in the documents and nowhere else."""
    return {id_: content["mainSteps"][0]["inputs"]["runCommand"][-1] for id_, content in documents()}


def test_the_template_of_the_documents_fits_into_a_request() -> None:
    assert len(DOCUMENTS.read_bytes()) <= 51_200, "or a StackSet could take it by way of a bucket only"


def test_the_stack_has_the_documents_that_other_accounts_have() -> None:
    nested = template()["Resources"]["CaptureDocuments"]
    assert nested["Type"] == "AWS::CloudFormation::Stack"
    assert nested["Properties"] == {
        "TemplateURL": DOCUMENTS.relative_to(PROJECT).as_posix(), "Parameters": {"StateMachineName": "!Ref StateMachineName"},
    }  # fmt: skip


def test_systems_manager_takes_the_documents_and_reads_no_parameter_into_a_script() -> None:
    for id_, content in documents():
        assert len(json.dumps(content)) < 64 * 1024, "the size of a document"
        (step,) = content["mainSteps"]
        before, script = step["inputs"]["runCommand"]
        assert "{{" not in script, "the script is the same, whatever the parameters are"
        for name, parameter in content["parameters"].items():
            assert parameter["allowedPattern"].startswith("^") and parameter["allowedPattern"].endswith("$")
            # The agent reads its time-out before it makes variables.
            assert (parameter.get("interpolationType") == "ENV_VAR") == (name != "Timeout")
            assert (f"{{{{ {name} }}}}" in before) == (name != "Timeout"), id_


@pytest.mark.parametrize("value", ['";id;"', "$(id)", "`id`", "a'b", "a b", "a\nb", "a\\b"])
def test_no_value_that_means_anything_to_a_shell_gets_past_a_parameters_pattern(value: str) -> None:
    import re

    for _, content in documents():
        for parameter in content["parameters"].values():
            assert not re.fullmatch(parameter["allowedPattern"].strip("^$"), value)


def names_of_files(script: str) -> set[str]:
    import re

    return set(re.findall(r"(?:collect|Add-File) '?(\d\d-[a-z-]+\.(?:txt|bin))", script))


def test_windows_is_asked_for_what_linux_is() -> None:
    """PowerShell is in no registry of packages, so nothing here can run the script; see the test of its grammar."""
    linux, windows = (names_of_files(scripts()[id_]) for id_ in ("CaptureLinux", "CaptureWindows"))
    of_linux_alone = {"16-deleted-open-files.txt", "22-network-files.txt", "24-kernel-sockets.txt", "62-login-records.bin", "72-cloud-init-scripts.txt"}
    assert len(linux) > 30 and linux - windows == of_linux_alone and windows <= linux


def test_the_windows_script_is_powershell_by_its_grammar_and_the_parser_would_say_if_not() -> None:
    tree_sitter = pytest.importorskip("tree_sitter")
    powershell = pytest.importorskip("tree_sitter_powershell")
    parser = tree_sitter.Parser(tree_sitter.Language(powershell.language()))
    script = scripts()["CaptureWindows"].encode()
    assert not parser.parse(script).root_node.has_error
    assert parser.parse(script.replace(b"return $false\n}", b"return $false\n", 1)).root_node.has_error


def test_the_role_may_send_the_two_documents_and_no_other() -> None:
    statements = template()["Resources"]["CaptureVolatile"]["Properties"]["Policies"][0]["Statement"]
    (send,) = [one for one in statements if one["Action"] == "ssm:SendCommand"]
    documents = [arn for arn in send["Resource"] if ":document/" in arn]
    assert [arn.rsplit("/", 1)[1] for arn in documents] == [f"${{CaptureDocuments.Outputs.{which}Document}}" for which in ("Linux", "Windows")]

"""The local stack: ministack and moto as one small AWS on 127.0.0.1, and Cordon deployed on it.

    with LocalStack() as stack:
        stack.deploy()
        execution = stack.run({"InstanceIds": ["i-…"], "Region": stack.region})
"""

from __future__ import annotations

import atexit
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Iterator

import boto3
from botocore.config import Config

from emulator.call_record import Call, Reader, is_change

TESTS = Path(__file__).resolve().parents[1]
PROJECT = TESTS.parent
TOOLS = PROJECT / ".local" / "build" / "bin"  # sam, cargo-lambda
RUNS = PROJECT / ".local" / "run"
PACKAGES = PROJECT / ".local" / "packages"  # what all stacks of this machine share
SESSION = "CORDON_TEST_SESSION"  # the environment variable that names a session of tests

ACCOUNT = "123456789012"  # both emulators take a 12-digit access key id for the account
REGION = "ap-northeast-1"
OURSELVES = "tests"  # how the tests' own calls are told apart in the records

# Each service that moto plays: boto3's name, and the word that the SDKs' endpoint variables have for it.
ON_MOTO = {
    "ec2": "EC2",
    "autoscaling": "AUTO_SCALING",
    "elb": "ELASTIC_LOAD_BALANCING",
    "elbv2": "ELASTIC_LOAD_BALANCING_V2",
    "iam": "IAM",
    "sts": "STS",
    "ssm": "SSM",
    "cloudtrail": "CLOUDTRAIL",
    "ebs": "EBS",
}


class StackError(Exception):
    """The stack could not do what it was asked; the text says why and where to look."""


class Server:
    """One emulator as a process, in a process group of its own, on a leash (see emulator/leash.py)."""

    def __init__(self, emulator: str, port: int, health: str, run: Path, environment: dict[str, str]) -> None:
        self.port = port
        self.endpoint = f"http://127.0.0.1:{port}"
        self.log = run / f"{emulator}.log"
        self._health = f"{self.endpoint}{health}"
        arguments = ["-p", str(port)] if emulator == "moto" else []
        self._command = [sys.executable, "-m", f"emulator.{emulator}.server", *arguments]
        self._environment = {**inherited_environment(), **credentials(), **environment, "PYTHONPATH": str(TESTS), "EMULATOR_LEASH": "1"}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, within_seconds: float) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )
        deadline = time.monotonic() + within_seconds
        while not answers(self._health):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise StackError(f"{self.log.stem} did not start within {within_seconds:.0f} s; its last words:\n{tail(self.log)}")
            time.sleep(0.05)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(process.pid, signal.SIGKILL)  # what it started and left behind
        except ProcessLookupError:
            pass
        process.wait()


@dataclass
class Execution:
    """How an execution of the state machine ended."""

    arn: str
    status: str
    output: Any
    error: str | None
    cause: str | None
    history: list[dict[str, Any]]
    seconds: float

    @property
    def outcome(self) -> dict[str, Any]:
        """The report of all instances: the output, or what state `Report` left when the execution then failed."""
        if self.status == "SUCCEEDED":
            return self.output or {}
        return last_output_of("Report", self.history) or {}

    def instance(self, instance_id: str) -> dict[str, Any]:
        """The outcome of one instance."""
        return next((one for one in self.outcome.get("Instances", []) if one.get("InstanceId") == instance_id), {})

    def step(self, instance_id: str, name: str) -> dict[str, Any]:
        """The outcome of one step of one instance."""
        return next((step for step in self.instance(instance_id).get("Steps", []) if step.get("Step") == name), {})


@dataclass(frozen=True)
class Elsewhere:
    """The same stack seen from another account or Region; whatever needs only clients and a Region takes this instead."""

    stack: LocalStack
    account: str
    region: str

    def client(self, service: str) -> Any:
        return self.stack.client(service, region=self.region, account=self.account)


class LocalStack:
    """`moto_only` leaves out ministack: enough for all that happens on the EC2 side.

    `settings` are further environment variables of both servers, MOTO_DRAIN_SECONDS and SFN_WAIT_SCALE for two.
    """

    def __init__(self, *, moto_only: bool = False, region: str = REGION, settings: dict[str, str] | None = None) -> None:
        self.region = region
        self.outputs: dict[str, str] = {}
        self._clients: dict[tuple[str, ...], Any] = {}
        self.folder = new_run_folder()
        self._fault_file = self.folder / "faults.json"
        self.invocations = self.folder / "invocations"  # see emulator/invocations.py
        self._hosts_file = self.folder / "ssm-hosts.json"
        self._records = [Reader(self.folder / "moto.calls"), Reader(self.folder / "ministack.calls")]
        self._deliveries = Reader(self.folder / "deliveries")
        self.cloudtrail_events = self.folder / "cloudtrail.events"  # see trail.py
        # The victims' image alone: moto counts the snapshots of its own thousand images as ours, and lists them each time.
        self.moto = Server("moto", free_port(), "/moto-api/", self.folder, {
            "MOTO_CALL_RECORD": str(self._records[0].path), "MOTO_FAULTS": str(self._fault_file), "MOTO_AMIS_PATH": str(TESTS / "emulator" / "moto" / "amis.json"),
            "MOTO_CLOUDTRAIL_EVENTS": str(self.cloudtrail_events), "MOTO_INVOCATIONS": str(self.invocations),
            "MOTO_SSM_HOSTS": str(self._hosts_file),
            **(settings or {})})  # fmt: skip
        self.ministack = None if moto_only else self._prepare_ministack(settings or {})

    def _prepare_ministack(self, settings: dict[str, str]) -> Server:
        port = free_port()
        scratch = self.folder / "scratch"
        scratch.mkdir()
        return Server("ministack", port, "/_ministack/health", self.folder, {
            "GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "IOT_MTLS_ENABLED": "0", "LAMBDA_EXECUTOR": "local",
            "MINISTACK_ACCOUNT_ID": ACCOUNT, "MINISTACK_CALL_RECORD": str(self._records[1].path),
            "MINISTACK_FAULTS": str(self._fault_file), "MINISTACK_DELIVERIES": str(self._deliveries.path),
            "MINISTACK_INVOCATIONS": str(self.invocations), "MINISTACK_CODE": str(PACKAGES / "code"),
            "TMPDIR": str(scratch), "STATE_DIR": str(scratch), "S3_DATA_DIR": str(scratch),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", **self.moto_endpoints(), **settings})  # fmt: skip

    def moto_endpoints(self) -> dict[str, str]:
        """The SDKs' own variables: ministack's Lambda processes inherit them, so that no code names an emulator."""
        return {f"AWS_ENDPOINT_URL_{word}": self.moto.endpoint for word in ON_MOTO.values()}

    def environment(self) -> dict[str, str]:
        """What a shell needs for the AWS CLI to see this stack."""
        general = {"AWS_ENDPOINT_URL": self.ministack.endpoint} if self.ministack else {}
        return {**general, **self.moto_endpoints(), **credentials(), "AWS_REGION": self.region, "AWS_DEFAULT_REGION": self.region}

    # --- Life --------------------------------------------------------------------------------------------------

    def start(self, within_seconds: float = 60) -> LocalStack:
        atexit.register(self.stop)
        for server in filter(None, (self.moto, self.ministack)):
            server.start(within_seconds)
        return self

    def stop(self) -> None:
        for server in filter(None, (self.ministack, self.moto)):
            server.stop()
        shutil.rmtree(self.folder / "scratch", ignore_errors=True)
        atexit.unregister(self.stop)

    def __enter__(self) -> LocalStack:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- Looking and disturbing --------------------------------------------------------------------------------

    def client(self, service: str, *, region: str | None = None, account: str = ACCOUNT) -> Any:
        """A boto3 client of the emulator that plays the service; it never retries, so that errors are seen."""
        server = self.moto if service in ON_MOTO else self.ministack
        if server is None:
            raise StackError(f"{service} is played by ministack, which this stack runs without")
        which = (service, region or self.region, account)
        if which not in self._clients:
            config = Config(retries={"total_max_attempts": 1}, user_agent_appid=OURSELVES, connect_timeout=5, read_timeout=60)
            key = {"aws_access_key_id": account, "aws_secret_access_key": "test"}
            self._clients[which] = boto3.client(service, endpoint_url=server.endpoint, region_name=which[1], config=config, **key)
        return self._clients[which]

    def elsewhere(self, account: str = ACCOUNT, region: str | None = None) -> Elsewhere:
        """This stack from another account's side, to build victims there for one: `build_victims(stack.elsewhere(MEMBER))`."""
        return Elsewhere(self, account, region or self.region)

    def calls(self, since: float = 0.0, *, ours: bool = False) -> list[Call]:
        """The recorded calls in the order they began; without `ours`, those that the product made."""
        recorded = [call for record in self._records for call in record.calls() if call["Start"] >= since]
        return sorted((call for call in recorded if ours or call["Caller"] != OURSELVES), key=lambda call: call["Start"])

    def changes(self, since: float = 0.0) -> list[Call]:
        """The calls by which the product changed something on the EC2 side."""
        return [call for call in self.calls(since) if call["Service"] in ON_MOTO and is_change(call)]

    def inject(self, *faults: dict[str, Any]) -> None:
        """Replaces all faults (see emulator/faults.py); none clears them."""
        new = self._fault_file.with_suffix(".new")
        new.write_text(json.dumps(faults), encoding="utf-8")
        new.replace(self._fault_file)  # at once, or a call could read half a file

    def manage(self, instance: str, **host: Any) -> None:
        """Registers a host with Systems Manager, or changes how it takes commands (see emulator/moto/ssm.py)."""
        known = json.loads(self._hosts_file.read_text(encoding="utf-8")) if self._hosts_file.exists() else {}
        new = self._hosts_file.with_suffix(".new")
        new.write_text(json.dumps({**known, instance: host}), encoding="utf-8")
        new.replace(self._hosts_file)

    # --- Events and messages -----------------------------------------------------------------------------------

    def put_event(self, event: dict[str, Any]) -> str:
        """Plays the service that emits the event, given as a target would receive it; returns the id it has here.

        Source `aws.*` is fine. Id, time, account and Region of the envelope are the stack's own.
        """
        entry = {"Source": event["source"], "DetailType": event["detail-type"], "Detail": json.dumps(event["detail"]),
                 "Resources": event.get("resources", [])}  # fmt: skip
        put = self.client("events").put_events(Entries=[entry])["Entries"][0]
        if "EventId" not in put:
            raise StackError(f"the event was refused: {put}")
        return put["EventId"]

    def subscribe(self, topic: str) -> str:
        """A new queue that receives the topic's messages for protocol sqs, each in its envelope; read it with `messages`."""
        name = f"listener-{uuid.uuid4().hex[:8]}"
        sqs, arn = self.client("sqs"), f"arn:aws:sqs:{self.region}:{ACCOUNT}:{name}"
        allow = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": arn}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [{**allow, "Condition": {"ArnEquals": {"aws:SourceArn": topic}}}]})
        queue = sqs.create_queue(QueueName=name, Attributes={"Policy": policy})["QueueUrl"]
        self.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        return queue

    def messages(self, queue: str, seconds: float = 0) -> list[Any]:
        """Takes all messages out of the queue and returns their bodies, parsed; waits up to `seconds` for the first."""
        sqs, bodies, deadline = self.client("sqs"), [], time.monotonic() + seconds
        while True:
            received = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
            for message in received:
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
                bodies.append(parsed(message["Body"]))
            if not received and (bodies or time.monotonic() > deadline):
                return bodies
            if not received:
                time.sleep(0.1)

    def deliveries(self, topic: str, protocol: str | None = None) -> list[dict[str, Any]]:
        """What SNS would have sent out of AWS: Protocol (email, https, sms, …), Endpoint, Subject and Message of each."""
        sent = [one for one in self._deliveries.calls() if one["TopicArn"] == topic]
        return [one for one in sent if protocol in (None, one["Protocol"])]

    # --- Cordon ------------------------------------------------------------------------------------------------

    def deploy(
        self, parameters: dict[str, str] | None = None, *, build: bool | None = None, project: Path = PROJECT, name: str = "cordon"
    ) -> dict[str, str]:
        """`sam build` where it is asked for or nothing is built yet, `sam deploy`, and the stack's outputs."""
        built = project / ".aws-sam" / "build" / "template.yaml"
        if build or (build is None and not built.exists()):
            self._sam(["build"], project, "sam-build.log")
        bucket = f"{name}-artifacts-{self.ministack.port}"
        self.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": self.region})
        overrides = [f"ParameterKey={key},ParameterValue={value}" for key, value in (parameters or {}).items()]
        self._sam(
            ["deploy", "--template-file", str(built), "--stack-name", name, "--s3-bucket", bucket, "--region", self.region,
             "--capabilities", "CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "--no-confirm-changeset", "--no-progressbar",
             # An environment that samconfig.toml does not have, so that nothing meant for AWS is taken from it.
             "--config-env", "local-stack", *(["--parameter-overrides", *overrides] if overrides else [])],
            project, "sam-deploy.log",
        )  # fmt: skip
        return self.read_outputs(name)

    def read_outputs(self, name: str) -> dict[str, str]:
        """Those of the CloudFormation stack, which from now on is the one that is meant."""
        described = self.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}
        return self.outputs

    def _sam(self, arguments: list[str], project: Path, log_name: str) -> None:
        path = os.pathsep.join([str(TOOLS), os.environ.get("PATH", "")])
        deploying = {} if arguments[0] == "build" else {"AWS_ENDPOINT_URL": self.ministack.endpoint, **credentials()}
        environment = {**inherited_environment(), **deploying, "PATH": path, "SAM_CLI_TELEMETRY": "0", "AWS_SDK_UA_APP_ID": OURSELVES}
        log = self.folder / log_name
        with log.open("wb") as output:
            ended = subprocess.run([str(TOOLS / "sam"), *arguments], cwd=project, env=environment, stdout=output, stderr=output, check=False)
        if ended.returncode:
            raise StackError(f"sam {arguments[0]} failed, see {log}; its last words:\n{tail(log)}")

    @contextmanager
    def reconfigured(self, function: str, **settings: str) -> Iterator[None]:
        """The function, named without the state machine's name, with other environment variables than the template gives it."""
        name = f"{self.outputs['StateMachineArn'].rsplit(':', 1)[1]}-{function}"
        before = self.client("lambda").get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        try:
            self._configure(name, {**before, **settings})
            yield
        finally:
            self._configure(name, before)

    def _configure(self, function: str, variables: dict[str, str]) -> None:
        client = self.client("lambda")
        client.update_function_configuration(FunctionName=function, Environment={"Variables": variables})
        client.get_waiter("function_updated_v2").wait(FunctionName=function, WaiterConfig={"Delay": 0.1})

    def begin(self, document: dict[str, Any], machine: str | None = None) -> str:
        """Starts an execution and returns its ARN."""
        arn = machine or self.outputs["StateMachineArn"]
        return self.client("stepfunctions").start_execution(stateMachineArn=arn, input=json.dumps(document))["executionArn"]

    def run(self, document: dict[str, Any], wait: float = 120, machine: str | None = None) -> Execution:
        """One execution from start to end."""
        return self.wait(self.begin(document, machine), wait)

    def wait(self, arn: str, seconds: float = 300) -> Execution:
        """Polls until the execution has ended; one that has not by then is an error of the test."""
        client, began = self.client("stepfunctions"), time.monotonic()
        deadline = began + seconds
        while (described := client.describe_execution(executionArn=arn))["status"] == "RUNNING":
            if time.monotonic() > deadline:
                open_states = ", ".join(sorted({time_["State"] for time_ in state_times(self.history(arn)) if time_["Left"] is None}))
                raise StackError(f"{arn} still runs after {seconds:.0f} s, in: {open_states}")
            time.sleep(min(0.3, 0.05 + (time.monotonic() - began) / 10))
        history = self.history(arn)
        return Execution(
            arn, described["status"], json.loads(described.get("output") or "null"), described.get("error"), described.get("cause"),
            history, (described["stopDate"] - described["startDate"]).total_seconds(),
        )  # fmt: skip

    def executions(self, machine: str | None = None) -> list[str]:
        """The ARNs of all executions of the state machine, newest first."""
        arn = machine or self.outputs["StateMachineArn"]
        pages = self.client("stepfunctions").get_paginator("list_executions").paginate(stateMachineArn=arn)
        return [execution["executionArn"] for page in pages for execution in page["executions"]]

    def new_execution(self, known: list[str], seconds: float = 10, machine: str | None = None) -> str:
        """The first execution that is not among the known ones: take `executions()` before the event that starts it."""
        deadline = time.monotonic() + seconds
        while not (new := [arn for arn in self.executions(machine) if arn not in known]):
            if time.monotonic() > deadline:
                raise StackError(f"no execution was started within {seconds:.0f} s")
            time.sleep(0.1)
        return new[-1]

    def history(self, arn: str) -> list[dict[str, Any]]:
        pages = self.client("stepfunctions").get_paginator("get_execution_history").paginate(executionArn=arn)
        return [event for page in pages for event in page["events"]]


# --- Reading an execution's history ------------------------------------------------------------------------------


def last_output_of(state: str, history: list[dict[str, Any]]) -> Any:
    """The parsed output of the last time the state was left, or None."""
    for event in reversed(history):
        details = event.get("stateExitedEventDetails", {})
        if details.get("name") == state:
            return json.loads(details.get("output") or "null")
    return None


def state_times(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each state that was entered: which iteration of the Map it belongs to, when it was entered, left, and the time between.

    A state is left by the first event of its name that follows from its entry, by way of previousEventId.
    """
    events = {event["id"]: event for event in history}
    visits: dict[int, dict[str, Any]] = {}
    for event in history:
        if details := event.get("stateEnteredEventDetails"):
            visits[event["id"]] = {
                "State": details["name"], "Iteration": iteration(event, events),
                "Entered": event["timestamp"], "Left": None, "Seconds": None,
            }  # fmt: skip
        elif details := event.get("stateExitedEventDetails"):
            if visit := next((visits[id_] for id_ in ancestry(event, events) if entered(events[id_], details["name"])), None):
                visit |= {"Left": event["timestamp"], "Seconds": between(visit["Entered"], event["timestamp"])}
    return list(visits.values())


def iteration(event: dict[str, Any], events: dict[int, dict[str, Any]]) -> int | None:
    """The index of the item of the outermost Map that the event belongs to."""
    started = (events[id_].get("mapIterationStartedEventDetails") for id_ in ancestry(event, events))
    indexes = [details["index"] for details in started if details]
    return indexes[-1] if indexes else None


def ancestry(event: dict[str, Any], events: dict[int, dict[str, Any]]) -> Iterator[int]:
    """The ids of the events that led to this one, nearest first."""
    seen: set[int] = set()
    while (before := event.get("previousEventId")) in events and before not in seen:
        seen.add(before)
        yield before
        event = events[before]


def entered(event: dict[str, Any], name: str) -> bool:
    return event.get("stateEnteredEventDetails", {}).get("name") == name


def between(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds()


def longest_chain(calls: list[Call]) -> int:
    """The greatest number of calls of which each began after the one before had ended: the sequential depth.

    It means something only where calls take time, so inject a delay first: here they take a few milliseconds,
    and calls that were made in parallel follow each other by chance.
    """
    count, free_at = 0, 0.0
    for call in sorted(calls, key=lambda call: call["End"]):
        if call["Start"] >= free_at:
            count, free_at = count + 1, call["End"]
    return count


# --- Small things ------------------------------------------------------------------------------------------------


def new_run_folder() -> Path:
    """A folder for one run's logs and records; those of the last ten runs stay for a look afterwards."""
    session_folder().mkdir(parents=True, exist_ok=True)
    old = sorted(path for path in RUNS.iterdir() if path.is_dir())
    for path in old[:-9]:
        if time.time() - path.stat().st_mtime > 86400:
            shutil.rmtree(path, ignore_errors=True)
    folder = session_folder() / f"{datetime.now():%Y%m%d-%H%M%S-%f}-{os.getpid()}"
    folder.mkdir()
    return folder


def session_folder() -> Path:
    """Where the runs of a session of tests lie together, whichever of its processes they belong to."""
    return RUNS / os.environ.get(SESSION, "")


def run_folders() -> list[Path]:
    """Those of all stacks that the session has started so far."""
    return sorted(path for path in session_folder().iterdir() if (path / "moto.log").exists())


def inherited_environment() -> dict[str, str]:
    """Our environment without any real account in it: no profile, key or role can leak into the stack."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def credentials() -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": ACCOUNT, "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}


def parsed(text: str) -> Any:
    """The JSON in a text, or the text where there is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def free_port() -> int:
    """Below the ports that the system itself hands out, so that no connection takes it before the server does."""
    while True:
        port = random.SystemRandom().randint(20_000, 32_000)  # two workers must not draw the same numbers
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def tail(log: Path, lines: int = 25) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

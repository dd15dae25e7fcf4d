"""Functions measured one by one: size, cold start, a warm call, and peak memory, through a Lambda Runtime API of our own."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Iterator

from .bench_stub import AwsStub
from support.stack import PROJECT, REGION, StackError, credentials

BINARIES = PROJECT / "target" / "lambda"
EVENTS = PROJECT / "events"
WITH_BOTO3 = Path(__file__).parent / "describe_with_boto3.py"
COMPARED = "describe-instance"
MEMORY_MB = 256  # what template.yaml gives each function
ANSWERS_WITHIN = 30.0

# These have no dry run of their own, or no target at the top of their event.
AS_THEY_ARE = (COMPARED, "intake", "report", "verify-containment")


@dataclass
class Sample:
    """One process of a function: from its start to its first answer, and a second call."""

    cold_ms: float
    warm_ms: float
    peak_mb: float
    answer: str  # `ok`, or the error's type
    calls: list[str]  # the AWS actions of the first call
    connections: int  # that the first call opened
    warm_connections: int  # that the second call opened although the first had some


@dataclass
class Figures:
    """The medians of a function's samples."""

    name: str
    binary_bytes: int | None
    zipped_bytes: int | None
    cold_ms: float
    warm_ms: float
    peak_mb: float
    answer: str
    calls: int
    connections: int
    warm_connections: int
    runs: int


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A function that has been measured is killed in the middle of its next request."""


class RuntimeApi:
    """The Lambda Runtime API for one process of a function: what it has left undone when it is killed reaches no other."""

    def __init__(self) -> None:
        self._events: queue.Queue[bytes | None] = queue.Queue()
        self._answers: queue.Queue[tuple[float, str]] = queue.Queue()
        self._server = QuietServer(("127.0.0.1", 0), self._handler())
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> RuntimeApi:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._events.put(None)  # ends the thread that waits for the next event
        self._server.shutdown()
        self._server.socket.close()

    def offer(self, event: bytes) -> None:
        self._events.put(event)

    def answer(self) -> tuple[float, str]:
        """When the next answer came, and what it was."""
        try:
            return self._answers.get(timeout=ANSWERS_WITHIN)
        except queue.Empty:
            raise StackError(f"no answer within {ANSWERS_WITHIN:.0f} s") from None

    def _handler(api) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler below
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                event = api._events.get()
                if event is None:
                    self.close_connection = True
                    return
                self.reply(200, event, {
                    "Lambda-Runtime-Aws-Request-Id": "8476a536-e9f4-11e8-9739-2dfe598c3fcd",
                    "Lambda-Runtime-Deadline-Ms": str(int((time.time() + 60) * 1000)),
                    "Lambda-Runtime-Invoked-Function-Arn": f"arn:aws:lambda:{REGION}:123456789012:function:bench",
                    "Lambda-Runtime-Trace-Id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=0",
                })  # fmt: skip

            def do_POST(self) -> None:
                body, at = self.rfile.read(int(self.headers.get("Content-Length", 0))), time.perf_counter()
                failed = self.path.endswith("/error")
                what = str(json.loads(body or b"{}").get("errorType")) if failed else "ok"
                api._answers.put((at, what))
                self.reply(202, b"{}", {})

            def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class Bench:
    """A place to measure functions in: the stub, and copies of the binaries that no build can take away."""

    def __init__(self, stub: AwsStub, folder: Path) -> None:
        self._stub, self._folder = stub, folder

    def measure(self, name: str, runs: int) -> Figures:
        binary = self._copy(name)
        samples = [self.sample(name, [str(binary)]) for _ in range(runs)]
        figures = summary(name, samples, binary.stat().st_size, zipped_size(binary))
        binary.unlink()
        return figures

    def compare(self, runs: int) -> tuple[Figures, Figures]:
        """The Rust function and the one with boto3 in turns, so that whatever else the machine does hits both."""
        binary = self._copy(COMPARED)
        commands = {COMPARED: [str(binary)], WITH_BOTO3.stem: [sys.executable, str(WITH_BOTO3)]}
        samples: dict[str, list[Sample]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, command in commands.items():
                samples[name].append(self.sample(name, command))
        rust = summary(COMPARED, samples[COMPARED], binary.stat().st_size, zipped_size(binary))
        return rust, summary("Python 3.11 + boto3", samples[WITH_BOTO3.stem], None, None)

    def sample(self, name: str, command: list[str]) -> Sample:
        event = event_of(COMPARED if name == WITH_BOTO3.stem else name)
        calls_before, connections_before = len(self._stub.actions), self._stub.connections
        log = self._folder / f"{name}.log"
        with RuntimeApi() as api, log.open("wb") as output:
            api.offer(event)
            environment = self._environment(name, api)
            started = time.perf_counter()
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=self._folder)
            try:
                answered, answer = api.answer()
                calls, connections = self._stub.actions[calls_before:], self._stub.connections
                peak = peak_memory_mb(process.pid)
                again = time.perf_counter()
                api.offer(event)
                answered_again, _ = api.answer()
            except StackError as error:
                raise StackError(f"{name}: {error}; its last words:\n{log.read_text(errors='replace')[-2000:]}") from None
            finally:
                process.kill()
                process.wait()
        first, second = connections - connections_before, self._stub.connections - connections
        return Sample((answered - started) * 1000, (answered_again - again) * 1000, peak, answer, calls, first, second)

    def _environment(self, name: str, api: RuntimeApi) -> dict[str, str]:
        """What Lambda sets, what template.yaml sets, and where the stub is."""
        return {
            "PATH": os.environ["PATH"], "HOME": str(self._folder), **credentials(),  # no settings of ours in ~/.aws
            "AWS_LAMBDA_RUNTIME_API": api.address, "AWS_LAMBDA_FUNCTION_NAME": name, "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEMORY_MB), "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/bench",
            "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/21/[$LATEST]0", "AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "INFO",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "AWS_EXECUTION_ENV": "AWS_Lambda_provided.al2023", "_HANDLER": "bootstrap",
            "LAMBDA_TASK_ROOT": str(self._folder), "LAMBDA_RUNTIME_DIR": "/var/runtime", "AWS_SESSION_TOKEN": "test", "TZ": ":UTC",
            "AWS_ENDPOINT_URL": self._stub.endpoint, "SSL_CERT_FILE": str(self._stub.roots), "AWS_CA_BUNDLE": str(self._stub.roots),
            "CASE_TABLE": "cordon-cases", "EVIDENCE_BUCKET": "cordon-evidence", "DELETE_UNENCRYPTED_ORIGINALS": "false",
            "SNAPSHOT_KEY_ARN": f"arn:aws:kms:{REGION}:123456789012:key/11111111-2222-3333-4444-555555555555",
        }  # fmt: skip

    def _copy(self, name: str) -> Path:
        """Tries again for a while, since somebody may be building the binary at this moment."""
        copy = self._folder / name
        for attempt in range(30):
            try:
                shutil.copy2(BINARIES / name / "bootstrap", copy)
                return copy
            except FileNotFoundError:
                if attempt == 29:
                    raise StackError(f"there is no {BINARIES / name}/bootstrap: run sam build") from None
                time.sleep(1)
        raise AssertionError("unreachable")


@contextmanager
def function_bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="cordon-bench-") as folder:
        with AwsStub(Path(folder)) as stub:
            yield Bench(stub, Path(folder))


def function_names() -> list[str]:
    return sorted(path.parent.name for path in BINARIES.glob("*/bootstrap"))


def event_of(name: str) -> bytes:
    """The function's event from events/. A step only plans, so that what is measured is the start and not a change's pauses."""
    event = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    return json.dumps(event if name in AS_THEY_ARE else {**event, "DryRun": True}).encode()


def peak_memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    if not found:
        raise StackError(f"process {pid} was gone before its memory could be read")
    return int(found[1]) / 1024


def zipped_size(binary: Path) -> int:
    """As `sam deploy` uploads it: deflate at its default level."""
    return len(zlib.compress(binary.read_bytes()))


def summary(name: str, samples: list[Sample], binary: int | None, zipped: int | None) -> Figures:
    answers = Counter(sample.answer for sample in samples)
    return Figures(
        name, binary, zipped, median(one.cold_ms for one in samples), median(one.warm_ms for one in samples),
        median(one.peak_mb for one in samples), answers.most_common(1)[0][0], int(median(len(one.calls) for one in samples)),
        int(median(one.connections for one in samples)), int(median(one.warm_connections for one in samples)), len(samples),
    )  # fmt: skip

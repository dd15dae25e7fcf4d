"""Those whom Cordon tells: what a queue, an e-mail address and a chat get of each message, and commands pasted from them."""

from __future__ import annotations

import json
import re
import shlex
import time
import uuid
from dataclasses import dataclass
from typing import Any

from .stack import LocalStack, StackError

CHAT = "https://global.sns-api.chatbot.amazonaws.com"


@dataclass(frozen=True)
class Message:
    """One message in each of its forms."""

    record: dict[str, Any]
    subject: str
    kind: str  # the message attribute that subscribers filter on
    email: str
    chat: dict[str, Any]

    def command(self, operation: str) -> str:
        """The command that the e-mail has for the operation, as a person would copy it."""
        lines = [line.strip() for line in self.email.splitlines() if line.strip().startswith(f"aws stepfunctions {operation} ")]
        if not lines:
            raise StackError(f"the e-mail has no command for {operation}:\n{self.email}")
        return lines[0]


class Inbox:
    """All messages from now on."""

    def __init__(self, stack: LocalStack) -> None:
        self._stack, self._topic = stack, stack.outputs["NotificationsTopicArn"]
        self._addresses = {"email": f"soc-{uuid.uuid4().hex[:8]}@example.com", "https": f"{CHAT}/?{uuid.uuid4().hex[:8]}"}
        for protocol, address in self._addresses.items():
            stack.client("sns").subscribe(TopicArn=self._topic, Protocol=protocol, Endpoint=address)
        self._queue = stack.subscribe(self._topic)
        self._messages: list[Message] = []

    def messages(self, execution: str | None = None, seconds: float = 0) -> list[Message]:
        """Those about the execution, or all, in the order they were published; waits up to `seconds` for a new one."""
        self._messages += [self._with_other_forms(envelope) for envelope in self._stack.messages(self._queue, seconds)]
        return [one for one in self._messages if execution in (None, one.record["Execution"]["Id"])]

    def wait(self, execution: str, count: int = 1, seconds: float = 20) -> list[Message]:
        """The execution's messages, once there are so many."""
        deadline = time.monotonic() + seconds
        while len(found := self.messages(execution, 0.2)) < count:
            if time.monotonic() > deadline:
                kinds = [one.record["Kind"] for one in found]
                raise StackError(f"{execution} was told of {len(found)} of {count} times within {seconds:.0f} s: {kinds}")
        return found

    def _with_other_forms(self, envelope: dict[str, Any]) -> Message:
        """A message's forms have the subject and the execution in common."""
        record, subject = json.loads(envelope["Message"]), envelope["Subject"]
        email, chat = (
            next(
                one["Message"]
                for one in self._stack.deliveries(self._topic, protocol)
                if (one["Endpoint"], one["Subject"]) == (address, subject) and record["Execution"]["Id"] in one["Message"]
            )
            for protocol, address in self._addresses.items()
        )
        return Message(record, subject, envelope["MessageAttributes"]["Kind"]["Value"], email, json.loads(chat))


def paste(stack: LocalStack, command: str, **changed: str) -> dict[str, Any]:
    """Runs a command of Step Functions as a shell and the AWS CLI would: `aws stepfunctions send-task-success --region …`."""
    program, service, operation, *words = shlex.split(command)
    if (program, service) != ("aws", "stepfunctions"):
        raise StackError(f"this is no command for Step Functions: {command}")
    options = dict(zip(words[::2], words[1::2], strict=True))
    client = stack.client(service, region=options.pop("--region"))
    # --output is the CLI's own option, so that it calls the parameter --task-output.
    named = {"output" if name == "--task-output" else re.sub(r"-(\w)", lambda found: found[1].upper(), name[2:]): value for name, value in options.items()}
    return getattr(client, operation.replace("-", "_"))(**{**named, **changed})

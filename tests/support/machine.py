"""State machines that a test makes for itself."""

from __future__ import annotations

import json
import time
from typing import Any

from .listener import ROLE
from .stack import Execution, LocalStack


def create_machine(stack: LocalStack, states: dict[str, Any], **more: Any) -> str:
    """The ARN of a JSONata state machine that begins with its first state."""
    definition = json.dumps({"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states, **more})
    return stack.client("stepfunctions").create_state_machine(name=f"m{time.time_ns()}", roleArn=ROLE, definition=definition)["stateMachineArn"]


def run_machine(stack: LocalStack, states: dict[str, Any], document: Any) -> Execution:
    """One execution of such a state machine."""
    return stack.run(document, 20, create_machine(stack, states))

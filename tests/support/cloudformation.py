"""Stacks that a test makes for itself."""

from __future__ import annotations

import json
import time
from typing import Any

from .stack import LocalStack


def deploy_template(stack: LocalStack, resources: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The physical ids of the resources; a stack that is not created is an error with its reason."""
    name, client = f"s{time.time_ns()}", stack.client("cloudformation")
    client.create_stack(StackName=name, TemplateBody=json.dumps({"Resources": resources}))
    while (status := client.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]).endswith("IN_PROGRESS"):
        time.sleep(0.1)
    if status != "CREATE_COMPLETE":
        events = client.describe_stack_events(StackName=name)["StackEvents"]
        raise AssertionError([event.get("ResourceStatusReason") for event in events])
    return {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in client.describe_stack_resources(StackName=name)["StackResources"]}

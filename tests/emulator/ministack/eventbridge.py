"""EventBridge: delivery of events, and rules and buses in templates."""

from __future__ import annotations

import json
import logging
from typing import Any

from ministack.core.arn import parse_arn
from ministack.core.iam_evaluator import EvalContext, evaluate_resource_policy
from ministack.core.responses import get_account_id, get_region
from ministack.services import eventbridge, lambda_svc, sns, sqs, stepfunctions
from ministack.services.cloudformation import provisioners

from emulator.patches import instrument, patch

log = logging.getLogger("events")
SERVICE = "events.amazonaws.com"


@patch(
    "eventbridge/latest/userguide/eb-rule-dlq.html", "eventbridge/latest/APIReference/API_PutTargets.html",
    upstream=("ministackorg/ministack#1313",),
)  # fmt: skip
def undelivered_events() -> None:
    """An event whose target does not exist, or does not let EventBridge in, goes to the target's dead-letter queue, if the
    queue's policy allows it.

    ministack evaluates no policies and has no dead-letter queues. Two things are still missing here: EventBridge's own retries,
    and the rule's role. An error within a function is for the function's on-failure destination; see `errors_of_functions`.
    """
    upstream = eventbridge._invoke_target

    def invoke(target: dict[str, Any], event: dict[str, Any], rule: dict[str, Any], view: Any = None) -> None:
        failed = failure(target["Arn"], rule["Arn"])
        if failed is None:
            return upstream(target, event, rule, view)
        log.warning("event %s not delivered to %s: %s", event.get("EventId"), target["Arn"], failed)
        if queue := (target.get("DeadLetterConfig") or {}).get("Arn"):
            body = (view or eventbridge._pattern_event_view(event)).event_with_detail()
            bury(queue, body, {"RULE_ARN": rule["Arn"], "TARGET_ARN": target["Arn"], **failed})

    eventbridge._invoke_target = invoke


def failure(target: str, rule: str) -> dict[str, str] | None:
    """Why the target does not take the rule's events, in the attributes of a dead letter, or None."""
    service = parse_arn(target).service
    if service == "states":
        found = stepfunctions._resolve_state_machine_arn(target)
        return None if found else {"ERROR_CODE": "NO_RESOURCE", "ERROR_MESSAGE": f"State machine {target} does not exist."}
    if service not in ("lambda", "sqs", "sns"):
        return None
    found, action, policy = resource(service, target)
    if not found:
        return {"ERROR_CODE": "NO_RESOURCE", "ERROR_MESSAGE": f"{target} does not exist."}
    if not lets_in(policy, action, target, rule):
        return {"ERROR_CODE": "NO_PERMISSIONS", "ERROR_MESSAGE": f"{SERVICE} may not {action} on {target}."}
    return None


def resource(service: str, arn: str) -> tuple[Any, str, Any]:
    """The resource of this ARN, the action that EventBridge needs on it, and its policy."""
    if service == "lambda":
        function = lambda_svc._get_func_record_for_ref(arn)[0]
        return function, "lambda:InvokeFunction", (function or {}).get("policy")
    if service == "sqs":
        queue = sqs._queue_by_arn(arn)
        return queue, "sqs:SendMessage", (queue or {}).get("attributes", {}).get("Policy")
    topic = sns._topic_by_arn_any_scope(arn)
    return topic, "sns:Publish", (topic or {}).get("attributes", {}).get("Policy")


def lets_in(policy: Any, action: str, arn: str, rule: str) -> bool:
    """Whether the resource's policy allows EventBridge the action on behalf of the rule."""
    of_caller = {"aws:sourcearn": rule, "aws:sourceaccount": get_account_id()}
    asked = EvalContext(
        principal_arn="", principal_type="Service", principal_account="", action=action, resource_arn=arn, region=get_region(),
        service_context=of_caller, secure_transport=True,
    )  # fmt: skip
    return evaluate_resource_policy(policy, asked, service=SERVICE).decision == "Allow"


def bury(arn: str, event: dict[str, Any], attributes: dict[str, str]) -> None:
    failed = failure(arn, attributes["RULE_ARN"])
    if failed:
        return log.warning("the dead letter is lost: %s", failed)
    letter = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
    url = sqs._queue_by_arn(arn)["url"]
    sqs._act_send_message({"QueueUrl": url, "MessageBody": json.dumps(event), "MessageAttributes": letter}, url)


@patch("lambda/latest/dg/invocation-async-error-handling.html", "lambda/latest/dg/invocation-async-retain-records.html")
def errors_of_functions() -> None:
    """EventBridge invokes a function asynchronously: Lambda retries a failed event twice, then sends it to the on-failure
    destination.

    ministack does so for other asynchronous invocations, but not for EventBridge's.
    """

    def dispatch(arn: str, payload: str) -> None:
        function, config, _ = lambda_svc._get_func_record_for_ref(arn)
        lambda_svc.invoke_async_with_retry(lambda_svc._execution_record_for_config(function, config), json.loads(payload))

    eventbridge._dispatch_to_lambda = dispatch


@patch("eventbridge/latest/APIReference/API_PutRule.html", "eventbridge/latest/APIReference/API_PutTargets.html")
def rules_in_templates() -> None:
    """A rule with an invalid pattern, or with a state machine as its target and no role to start it, is not created.

    ministack creates it.
    """
    handlers = provisioners._RESOURCE_HANDLERS["AWS::Events::Rule"]
    upstream = handlers["create"]

    def create(logical_id: str, properties: dict[str, Any], stack: str) -> Any:
        pattern = properties.get("EventPattern")
        if pattern and (wrong := eventbridge._event_pattern_error(pattern if isinstance(pattern, str) else json.dumps(pattern))):
            raise ValueError(f"Event pattern is not valid. Reason: {wrong}")
        for target in properties.get("Targets") or []:
            if parse_arn(target["Arn"]).service == "states" and not target.get("RoleArn"):
                raise ValueError(f"RoleArn is required for target {target['Arn']}.")
        return upstream(logical_id, properties, stack)

    handlers["create"] = create


@patch("AWSCloudFormation/latest/TemplateReference/aws-resource-events-eventbuspolicy.html")
def bus_policies_in_templates() -> None:
    """`AWS::Events::EventBusPolicy` is a statement of the bus's policy.

    ministack does not have the resource type.
    """

    def create(logical_id: str, properties: dict[str, Any], stack: str) -> Any:
        bus, statement = properties.get("EventBusName", "default"), properties["Statement"]
        if bus not in eventbridge._event_bus_policies:
            eventbridge._event_bus_policies[bus] = {"Version": "2012-10-17", "Statement": []}
        delete(properties["StatementId"], properties)
        eventbridge._event_bus_policies[bus]["Statement"].append({"Sid": properties["StatementId"], **statement})
        return properties["StatementId"], {}

    def delete(physical_id: str, properties: dict[str, Any]) -> None:
        policy = eventbridge._event_bus_policies.get(properties.get("EventBusName", "default"), {"Statement": []})
        policy["Statement"] = [one for one in policy["Statement"] if one.get("Sid") != physical_id]

    provisioners._RESOURCE_HANDLERS["AWS::Events::EventBusPolicy"] = {"create": create, "delete": delete}


@instrument
def events_of_aws() -> None:
    """A test may put events whose source is `aws.*`, to play GuardDuty.

    AWS refuses them, and so does ministack.
    """
    eventbridge._put_events.__defaults__ = (True,)

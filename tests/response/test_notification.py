"""What people and machines are told of whole executions, in each form, and that they are told it once."""

from __future__ import annotations

import json
import re
import time
import unicodedata
from typing import Any, Iterator

import jsonschema
import pytest

from support.containment import isolated, journal
from support.findings import guardduty_finding
from support.inbox import Inbox, Message, paste
from support.stack import PROJECT, Execution, LocalStack
from support.victim import Victim, bare_instance, build_victims

NO_INSTANCE = "i-0123456789abcdef0"
NO_CONTROL = {"type": "string", "pattern": r"^[^\x00-\x08\x0b-\x1f]*$"}
# https://docs.aws.amazon.com/chatbot/latest/adminguide/custom-notifs.html
CUSTOM_NOTIFICATION = {
    "type": "object", "required": ["version", "source", "content"], "additionalProperties": False,
    "properties": {
        "version": {"const": "1.0"}, "source": {"const": "custom"}, "id": NO_CONTROL,
        "content": {
            "type": "object", "required": ["description"], "additionalProperties": False,
            "properties": {
                "textType": {"const": "client-markdown"}, "title": NO_CONTROL, "description": NO_CONTROL,
                "nextSteps": {"type": "array", "items": NO_CONTROL}, "keywords": {"type": "array", "items": NO_CONTROL},
            },
        },
        "metadata": {
            "type": "object", "additionalProperties": False,
            "properties": {
                "threadId": NO_CONTROL, "summary": NO_CONTROL, "eventType": NO_CONTROL,
                "relatedResources": {"type": "array", "items": NO_CONTROL},
                "additionalContext": {"type": "object", "additionalProperties": NO_CONTROL},
            },
        },
    },
}  # fmt: skip
# What an attacker would have a tired person see: lines, a heading, links, a mention and code that look like Cordon's own.
HOSTILE = (
    "FORGED”\r\n\nWHAT TO DO\n\nFORGED: nothing, it is contained.\n```\nFORGED\n```\n<http://evil.example|FORGED> "
    "[FORGED](https://evil.example) @here <!here> `FORGED` *FORGED* \u202eDEGROF"
)
ROW = "i-0fedcba9876543210 in ap-northeast-1: Contained"  # as in the report's table
ESCAPES = "\x1b[2J\x1b[31m\x07\x00"

pytestmark = pytest.mark.xdist_group("test_notification")  # the last test looks back on the others
expected: dict[str, list[str]] = {}  # what each execution of this file is told of as


@pytest.fixture(scope="module")
def contained(stack: LocalStack, inbox: Inbox) -> tuple[Victim, list[Message]]:
    (victim,) = build_victims(stack)
    arn = stack.begin({"InstanceIds": [victim.instance], "Region": stack.region})
    assert stack.wait(arn).status == "SUCCEEDED"
    return victim, told(inbox, arn, "ContainmentStarted", "Contained")


def told(inbox: Inbox, execution: str, *kinds: str) -> list[Message]:
    """The execution's messages, which are of these kinds, good ones by the notification's own schema, and no others."""
    expected[execution] = list(kinds)
    messages = inbox.wait(execution, len(kinds)) if kinds else inbox.messages(execution)
    assert [message.record["Kind"] for message in messages] == list(kinds)
    for message in messages:
        well_formed(message)
    return messages


def well_formed(message: Message) -> None:
    schema = json.loads((PROJECT / "docs" / "notification.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(message.record)
    jsonschema.validate(message.chat, CUSTOM_NOTIFICATION)
    assert message.kind == message.record["Kind"] == message.chat["metadata"]["eventType"]
    assert message.email.splitlines()[0] == message.record["Headline"] == message.chat["content"]["title"]
    assert message.chat["metadata"]["threadId"] == message.record["Execution"]["Id"]
    assert message.record["Console"] in message.email and message.record["Console"] in message.chat["content"]["description"]


# --- Good ends ---------------------------------------------------------------------------------------------------


def test_a_containment_is_told_when_it_begins_and_when_it_has_ended(contained: tuple[Victim, list[Message]]) -> None:
    victim, (started, ended) = contained
    assert started.subject == f"Cordon: containment started for {victim.instance}"
    assert ended.subject == f"Cordon: contained {victim.instance}"
    assert [one["InstanceId"] for one in started.record["Instances"]] == [victim.instance]
    assert (ended.record["Instances"][0]["Verdict"], ended.record["Trigger"]["Source"]) == ("Contained", "Hand")
    assert ended.record["Instances"][0]["ResidualRisk"] and ended.record["Instances"][0]["Open"] == []


def test_the_email_says_what_happened_what_is_left_and_what_to_do(contained: tuple[Victim, list[Message]]) -> None:
    victim, (_, ended) = contained
    lines = ended.email.splitlines()
    assert lines[0].startswith(f"Cordon has contained {victim.instance} in ap-northeast-1 (account 123456789012)")
    parts = ("WHY", "INSTANCES", "WHAT AN ATTACKER CAN STILL DO", "WHAT TO DO", "EXECUTION", "EVIDENCE", "IN THE EXECUTION'S OWN WORDS")
    assert [line for line in lines if line in parts] == list(parts)
    assert "* Somebody started it by hand." in lines
    assert any(line.startswith("| ") and "isolate-network" in line and "Done" in line for line in lines)


def test_the_chat_gets_the_same_as_a_custom_notification_in_one_thread(contained: tuple[Victim, list[Message]]) -> None:
    victim, (started, ended) = contained
    assert started.chat["metadata"]["threadId"] == ended.chat["metadata"]["threadId"] and started.chat["id"] != ended.chat["id"]
    assert ended.chat["metadata"]["relatedResources"] == [victim.instance]
    assert ended.chat["metadata"]["additionalContext"]["InstanceId"] == victim.instance
    assert ended.chat["content"]["keywords"] == ["Cordon", "Contained"] and ended.chat["content"]["nextSteps"]


def test_a_dry_run_by_hand_is_told_to_nobody(stack: LocalStack, inbox: Inbox) -> None:
    victim = bare_instance(stack)
    execution = stack.run({"InstanceIds": [victim.instance], "Region": stack.region, "DryRun": True})
    assert execution.status == "SUCCEEDED"
    told(inbox, execution.arn)


# --- Bad ends ----------------------------------------------------------------------------------------------------


def test_what_is_only_partly_contained_is_told_once_with_a_command_that_contains_the_rest(stack: LocalStack, inbox: Inbox) -> None:
    victim = bare_instance(stack)
    stack.inject({"Service": "ec2", "Action": "ModifyInstanceAttribute", "Code": "UnauthorizedOperation", "Status": 403})
    execution = stack.run({"InstanceIds": [victim.instance], "Region": stack.region})
    assert execution.error == "PartiallyContained"
    _, ended = told(inbox, execution.arn, "ContainmentStarted", "PartiallyContained")
    assert ended.email.startswith(f"Containment is not complete: something is open on {victim.instance}")
    assert (ended.record["Status"], ended.record["Error"]) == ("FAILED", "PartiallyContained")
    assert "ec2:ModifyInstanceAttribute" in ended.record["Cause"]
    assert re.search(r"^\| +protect-instance +Failed .*ec2:ModifyInstanceAttribute", ended.email, re.MULTILINE)
    command = ended.command("start-execution")
    assert f"```\n{command}\n```" in ended.chat["content"]["description"]

    stack.inject()
    again = paste(stack, command)["executionArn"]
    assert stack.wait(again).status == "SUCCEEDED"
    told(inbox, again, "ContainmentStarted", "Contained")


def test_what_is_not_contained_is_told_once_and_never_sounds_contained(stack: LocalStack, inbox: Inbox) -> None:
    execution = stack.run({"InstanceIds": [NO_INSTANCE], "Region": stack.region})
    assert execution.error == "NotContained"
    _, ended = told(inbox, execution.arn, "ContainmentStarted", "NotContained")
    assert ended.subject == f"Cordon: NOT contained: {NO_INSTANCE}"
    assert ended.email.startswith(f"NOT contained: {NO_INSTANCE}") and "there is no instance" in ended.email
    assert "has contained" not in ended.email + json.dumps(ended.chat)


def test_refused_input_is_told_once_with_the_sentence_that_says_why(stack: LocalStack, inbox: Inbox) -> None:
    execution = stack.run({"InstanceIds": [NO_INSTANCE], "Region": "xx-nowhere-9"})
    (ended,) = told(inbox, execution.arn, "ExecutionFailed")
    assert ended.record["Error"] == "InvalidInput" and ended.record["Cause"] == execution.cause
    assert ended.subject == "Cordon: input rejected, nothing contained"
    assert f"| {execution.cause}" in ended.email.splitlines()


def test_an_execution_that_somebody_stops_is_told_once(stack: LocalStack, inbox: Inbox) -> None:
    victim = bare_instance(stack)
    arn = stack.begin({"InstanceIds": [victim.instance], "Region": stack.region})
    inbox.wait(arn)
    stack.client("stepfunctions").stop_execution(executionArn=arn, error="Drill", cause="the night shift stopped it")
    _, ended = told(inbox, arn, "ContainmentStarted", "ExecutionAborted")
    assert ended.record["Status"] == "ABORTED" and ended.record["Instances"][0]["InstanceId"] == victim.instance
    assert ended.email.startswith(f"Somebody stopped Cordon's execution: treat {victim.instance}")
    assert "| the night shift stopped it" in ended.email.splitlines()


def test_an_execution_that_breaks_before_it_can_tell_anything_is_told_once(stack: LocalStack, inbox: Inbox) -> None:
    with stack.reconfigured("intake", RESPONSE_MODE="Perhaps"):
        execution = stack.run({"InstanceIds": [NO_INSTANCE], "Region": stack.region})
    (ended,) = told(inbox, execution.arn, "ExecutionFailed")
    assert (ended.record["Status"], ended.record["Error"]) == ("FAILED", execution.error)
    assert "RESPONSE_MODE" in ended.record["Cause"]
    assert ended.email.startswith(f"Cordon's execution failed: treat {NO_INSTANCE}") and ended.command("start-execution")


# --- Nobody to tell ----------------------------------------------------------------------------------------------


def test_an_instance_is_contained_when_nobody_can_be_told_and_the_execution_says_that_nobody_was(stack: LocalStack, inbox: Inbox) -> None:
    victim, gone = bare_instance(stack), f"{stack.outputs['NotificationsTopicArn']}-gone"
    with stack.reconfigured("notify", TOPIC_ARN=gone):
        execution = stack.run({"InstanceIds": [victim.instance], "Region": stack.region})
        letter = dead_letter(stack, execution.arn)
    assert isolated(stack, victim) and execution.instance(victim.instance)["Verdict"] == "Contained"
    assert (execution.status, execution.error) == ("FAILED", "NotTold")
    assert "start notification failed: " in execution.cause and f"sns:Publish on {gone}" in execution.cause
    assert letter["requestPayload"]["detail"]["error"] == "NotTold"
    told(inbox, execution.arn)


def dead_letter(stack: LocalStack, execution: str) -> dict[str, Any]:
    """What the queue of undelivered events gets of the execution, after Lambda has tried three times."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for letter in stack.messages(stack.outputs["DeadLetterQueueUrl"], 1):
            if letter.get("requestPayload", {}).get("detail", {}).get("executionArn") == execution:
                return letter
    raise AssertionError(f"no dead letter about {execution}")


def test_what_the_workflow_could_not_tell_is_told_by_the_rule_outside_it(stack: LocalStack, inbox: Inbox) -> None:
    victim = bare_instance(stack)
    stack.inject({"Service": "sns", "Action": "Publish", "Code": "AuthorizationError", "Status": 403, "Times": 2})
    execution = stack.run({"InstanceIds": [victim.instance], "Region": stack.region})
    assert (execution.status, execution.error) == ("FAILED", "NotTold")
    (ended,) = told(inbox, execution.arn, "ExecutionFailed")
    assert ended.record["Error"] == "NotTold" and "AuthorizationError" in ended.record["Cause"]
    assert f"{victim.instance} in {stack.region}: Contained" in ended.record["Cause"]


def test_a_question_that_cannot_be_put_is_not_taken_for_a_refusal(stack: LocalStack, inbox: Inbox) -> None:
    """Nobody was asked, so nobody has refused: it is a failure, and the finding's next occurrence is another chance."""
    victim = bare_instance(stack)
    stack.inject({"Service": "sns", "Action": "Publish", "Code": "AuthorizationError", "Status": 403, "Resource": "ApprovalRequested"})
    execution = stack.wait(respond(stack, guardduty_finding(victim.instance)))
    step = execution.step(victim.instance, "request-approval")
    assert step["Status"] == "Failed" and step["Reason"].startswith("nobody could be asked"), step
    assert journal(stack, victim)["case"]["Approval"] == "Unanswered"
    assert execution.status == "FAILED"
    assert len(told(inbox, execution.arn, "ContainmentStarted", execution.error)) == 2


# --- What others write -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def refused(stack: LocalStack, inbox: Inbox) -> tuple[Execution, list[Message]]:
    """A finding and tags that an attacker has written, and a refusal that somebody else has."""
    victim = bare_instance(stack)
    stack.client("ec2").create_tags(Resources=[victim.instance], Tags=[{"Key": "Name", "Value": HOSTILE}, {"Key": HOSTILE[:100], "Value": "x"}])
    arn = respond(stack, guardduty_finding(victim.instance, title=ESCAPES + HOSTILE, type=f"Backdoor:EC2/{HOSTILE}"))
    question = inbox.wait(arn, 2)[1]
    paste(stack, question.command("send-task-failure"), cause=f"{ESCAPES}{HOSTILE}\n{ROW}")
    execution = stack.wait(arn)
    assert not isolated(stack, victim)
    return execution, told(inbox, arn, "ContainmentStarted", "ApprovalRequested", "NotApproved")


def respond(stack: LocalStack, event: dict[str, Any]) -> str:
    """The execution that the event starts."""
    known = stack.executions()
    stack.put_event(event)
    return stack.new_execution(known)


def test_no_text_of_an_attacker_forges_a_line_a_link_or_a_mention_in_any_form(refused: tuple[Execution, list[Message]]) -> None:
    execution, messages = refused
    assert execution.status == "SUCCEEDED", execution.cause
    for message in messages:
        nothing_forged(message)
    assert any("FORGED" in line for line in messages[1].email.splitlines() if line.startswith("* Tags: "))


def test_the_words_of_whoever_refuses_stay_in_their_row_of_the_table(refused: tuple[Execution, list[Message]]) -> None:
    execution, messages = refused
    assert ROW not in execution.output["Table"].splitlines()
    assert f"| {ROW}" not in messages[-1].email.splitlines()


def test_no_text_of_an_input_or_of_an_error_forges_anything_either(stack: LocalStack, inbox: Inbox) -> None:
    refused = stack.run({"InstanceIds": [f"{NO_INSTANCE} {HOSTILE}"], "Region": f"{stack.region} {HOSTILE}"})
    nothing_forged(*told(inbox, refused.arn, "ExecutionFailed"))
    victim = bare_instance(stack)
    stopped = stack.begin({"InstanceIds": [victim.instance], "Region": stack.region})
    inbox.wait(stopped)
    stack.client("stepfunctions").stop_execution(executionArn=stopped, error=HOSTILE, cause=ESCAPES + HOSTILE)
    nothing_forged(told(inbox, stopped, "ContainmentStarted", "ExecutionAborted")[1])


def nothing_forged(message: Message) -> None:
    """What is quoted stands in a line that Cordon began, dead; headings, titles, commands and single lines are Cordon's own."""
    lines, description = message.email.splitlines(), message.chat["content"]["description"]
    assert "FORGED" in message.email and "FORGED" in description and "FORGED" in json.dumps(message.record)
    assert lines.count("WHAT TO DO") == 1
    assert [line for line in lines if "FORGED" in line and not line.startswith(("* ", "| "))] == []
    assert [line for line in description.splitlines() if "FORGED" in line and not line.startswith(("• ", "| "))] == []
    assert [line for line in description.splitlines() if "`" in line and line != "```"] == [] and description.count("```") % 2 == 0
    assert [line for line in description.splitlines() if re.search(r"[<>@*\[\]]", line) and "FORGED" in line] == []
    own = (message.subject, message.record["Headline"], message.chat["content"]["title"], *message.chat["content"]["nextSteps"])
    assert [text for text in own if "FORGED" in text] == []
    assert set(re.findall(r"https?://[^/\s]+", f"{message.email} {description}")) == {"https://ap-northeast-1.console.aws.amazon.com"}
    for text in (message.email, description, message.subject, *own, *texts(message.record)):
        hidden = {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf")} - {"\n"}
        assert not hidden, text


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from texts(one)


def test_nobody_was_told_anything_else_of_these_executions_and_nothing_twice(inbox: Inbox) -> None:
    time.sleep(1)  # for whatever is late
    assert {arn: [message.record["Kind"] for message in inbox.messages(arn)] for arn in expected} == expected

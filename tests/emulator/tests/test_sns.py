"""SNS: messages, and topics in templates."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.cloudformation import deploy_template
from support.refusal import refusal
from support.stack import LocalStack

proves = pytest.mark.proves

KEY = "arn:aws:kms:ap-northeast-1:123456789012:key/2f2d3a1c-0000-4000-8000-000000000001"
TEXTS = {"default": "for all", "sqs": "for queues", "email": "for people\nin lines", "https": '{"for": "machines"}'}


@pytest.fixture(scope="module")
def topic(bare_stack: LocalStack) -> str:
    """A topic as a template makes it, with an e-mail address and a web endpoint that never confirm."""
    def subscription(protocol: str, endpoint: str) -> dict[str, Any]:
        return {"Type": "AWS::SNS::Subscription", "Properties": {"TopicArn": {"Ref": "Topic"}, "Protocol": protocol, "Endpoint": endpoint}}

    statement = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sns:Publish", "Resource": {"Ref": "Topic"}}
    made = deploy_template(bare_stack, {
        "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"KmsMasterKeyId": KEY}},
        "Policy": {"Type": "AWS::SNS::TopicPolicy", "Properties": {
            "Topics": [{"Ref": "Topic"}], "PolicyDocument": {"Version": "2012-10-17", "Statement": [statement]}}},
        "Mail": subscription("email", "soc@example.com"), "Web": subscription("https", "https://pager.example.com/hook"),
    })  # fmt: skip
    return made["Topic"]


def publish(stack: LocalStack, topic: str, message: Any, **more: Any) -> None:
    structure = {} if isinstance(message, str) else {"MessageStructure": "json"}
    stack.client("sns").publish(TopicArn=topic, Message=message if isinstance(message, str) else json.dumps(message), **structure, **more)


@proves("ministack.sns.key_in_templates")
def test_a_topic_of_a_template_has_its_key_and_its_policy(bare_stack: LocalStack, topic: str) -> None:
    attributes = bare_stack.client("sns").get_topic_attributes(TopicArn=topic)["Attributes"]
    assert attributes["KmsMasterKeyId"] == KEY
    assert json.loads(attributes["Policy"])["Statement"][0]["Principal"] == {"Service": "events.amazonaws.com"}


@proves("ministack.sns.deliveries")
def test_each_protocol_gets_its_own_text_or_else_the_default(bare_stack: LocalStack, topic: str) -> None:
    queue = bare_stack.subscribe(topic)
    publish(bare_stack, topic, TEXTS, Subject="Contained: i-1")
    publish(bare_stack, topic, {"default": "for all"})
    received = bare_stack.messages(queue, 5)
    assert [(one["Message"], one.get("Subject")) for one in received] == [("for queues", "Contained: i-1"), ("for all", None)]
    assert [one["Message"] for one in bare_stack.deliveries(topic, "email")] == [TEXTS["email"], "for all"]
    assert bare_stack.deliveries(topic, "https")[0] == {
        "TopicArn": topic, "Protocol": "https", "Endpoint": "https://pager.example.com/hook", "Subject": "Contained: i-1", "Message": TEXTS["https"]}  # fmt: skip


def test_a_raw_subscription_gets_the_text_alone(bare_stack: LocalStack, topic: str) -> None:
    queue = bare_stack.subscribe(topic)
    sns = bare_stack.client("sns")
    own = next(one for one in sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"] if one["Endpoint"].endswith(queue.rsplit("/", 1)[1]))
    sns.set_subscription_attributes(SubscriptionArn=own["SubscriptionArn"], AttributeName="RawMessageDelivery", AttributeValue="true")
    publish(bare_stack, topic, {"default": "for all", "sqs": '{"InstanceId": "i-1"}'}, Subject="Contained: i-1")
    assert bare_stack.messages(queue, 5) == [{"InstanceId": "i-1"}]


@proves("ministack.sns.publish_refusals")
@pytest.mark.parametrize(
    ("message", "subject"),
    [("text", "two\nlines"), ("text", "a tab\t"), ("text", "x" * 100), ({"sqs": "no default"}, "fine"), ({"default": 1}, "fine"), ("", "fine")],
)
def test_a_message_with_an_invalid_text_or_subject_is_refused(bare_stack: LocalStack, topic: str, message: Any, subject: str) -> None:
    assert refusal(publish, stack=bare_stack, topic=topic, message=message, Subject=subject)[0] == "InvalidParameter"


def test_a_subject_may_be_any_text_of_99_characters(bare_stack: LocalStack, topic: str) -> None:
    publish(bare_stack, topic, "text", Subject="封じ込め" + "x" * 95)
    assert bare_stack.deliveries(topic, "email")[-1]["Subject"].startswith("封じ込め")

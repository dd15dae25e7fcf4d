"""SNS: messages, and topics in templates."""

from __future__ import annotations

import json
import os
import unicodedata
from typing import Any

from ministack.services import sns
from ministack.services.cloudformation import provisioners

from emulator.call_record import CallRecord
from emulator.patches import instrument, patch

OUTSIDE = ("email", "email-json", "http", "https", "sms")


@instrument
def deliveries() -> None:
    """What SNS would mail, text or post is written to a file, one line of JSON each, and sent to nobody.

    A line has the text for the subscription's protocol. Nobody can confirm a subscription here, so all count as confirmed.
    """
    record, upstream = CallRecord(os.environ.get("MINISTACK_DELIVERIES")), sns._fanout

    def fanout(
        topic: str, id_: str, message: str, subject: str, structure: str = "", attributes: dict[str, Any] | None = None, **more: Any
    ) -> None:
        for subscription in (sns._topic_by_arn_any_scope(topic) or {"subscriptions": []})["subscriptions"]:
            protocol = subscription["protocol"]
            text = sns._resolve_message_for_protocol(message, structure, protocol)
            if protocol in OUTSIDE and sns._matches_filter_policy(subscription, attributes or {}, text):
                endpoint = subscription["endpoint"]
                record.append({"TopicArn": topic, "Protocol": protocol, "Endpoint": endpoint, "Subject": subject or None, "Message": text})
        upstream(topic, id_, message, subject, structure, attributes, **more)

    async def send_nothing(*_: Any) -> None:
        return None

    sns._fanout, sns._deliver_to_http, sns._send_subscription_confirmation = fanout, send_nothing, send_nothing


@patch("sns/latest/api/API_Publish.html")
def publish_refusals() -> None:
    """`Publish` refuses an empty message, a message of structure `json` without a `default`, and a subject of 100 characters or
    with a line break or control character.

    ministack accepts everything, and sends the whole JSON to protocols that have no text in it.
    """
    upstream = sns.publish_internal

    def publish(topic: str, message: Any, subject: str = "", *, message_structure: str = "", **more: Any) -> Any:
        if wrong := wrong_subject(subject) or wrong_message(message, message_structure):
            raise sns.SnsPublishError("InvalidParameter", f"Invalid parameter: {wrong}")
        return upstream(topic, message, subject, message_structure=message_structure, **more)

    sns.publish_internal = publish


def wrong_subject(subject: str) -> str | None:
    unprintable = any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in subject or "")
    return "Subject" if unprintable or len(subject or "") >= 100 else None


def wrong_message(message: Any, structure: str) -> str | None:
    if not message:
        return "Empty message"
    if structure != "json":
        return None
    try:
        texts = json.loads(message)
    except json.JSONDecodeError:
        return "Message Structure - JSON message body failed to parse"
    if not isinstance(texts, dict) or not isinstance(texts.get("default"), str):
        return "Message Structure - No default entry in JSON message body"
    return None


@patch("AWSCloudFormation/latest/TemplateReference/aws-resource-sns-topic.html")
def key_in_templates() -> None:
    """The `KmsMasterKeyId` of a topic in a template is an attribute of the topic.

    ministack ignores it.
    """
    handlers = provisioners._RESOURCE_HANDLERS["AWS::SNS::Topic"]
    upstream = handlers["create"]

    def create(logical_id: str, properties: dict[str, Any], stack: str) -> Any:
        arn, attributes = upstream(logical_id, properties, stack)
        if key := properties.get("KmsMasterKeyId"):
            sns._topics[arn]["attributes"]["KmsMasterKeyId"] = key
        return arn, attributes

    handlers["create"] = create

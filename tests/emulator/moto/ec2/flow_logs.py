"""EC2: flow logs."""

from __future__ import annotations

from typing import Any

from moto.ec2.exceptions import EC2ClientError, FlowLogAlreadyExists
from moto.ec2.models.flow_logs import FlowLogs, FlowLogsBackend
from moto.ec2.responses import EC2Response
from moto.ec2.utils import random_flow_log_id

from emulator.patches import patch


@patch("AWSEC2/latest/APIReference/API_CreateFlowLogs.html")
def to_s3() -> None:
    """A flow log goes to a bucket in any account, or to a folder in it that is not named `AWSLogs`.

    moto looks for the bucket among its own, while Cordon's buckets are in ministack. The bucket's policy is not evaluated
    here: static/test_template.py does that.
    """
    upstream = FlowLogsBackend.create_flow_logs

    def create_flow_logs(self: Any, **given: Any) -> Any:
        if given["log_destination_type"] != "s3":
            return upstream(self, **given)
        destination = given["log_destination"]
        if not destination.startswith("arn:aws:s3:::") or "/AWSLogs" in destination:
            raise EC2ClientError("InvalidParameter", f"LogDestination: {destination} is not valid")
        made = []
        for resource in given["resource_ids"]:
            if given["resource_type"] == "NetworkInterface":
                self.get_network_interface(resource)
            if any((log.resource_id, log.log_destination) == (resource, destination) for log in self.flow_logs.values()):
                raise FlowLogAlreadyExists()
            log = FlowLogs(
                self, random_flow_log_id(), resource, given["traffic_type"], destination, None, None,
                given["max_aggregation_interval"] or 600, "s3", given["log_format"],
            )  # fmt: skip
            self.flow_logs[log.id] = log
            made.append(log)
        return made, []

    FlowLogsBackend.create_flow_logs = create_flow_logs


@patch("ec2/latest/devguide/ec2-api-idempotency.html")
def client_token() -> None:
    """A request that is repeated under its client token has no further effect; a different request under it is refused.

    moto ignores the token.
    """
    upstream, answered = EC2Response.create_flow_logs, {}

    def create_flow_logs(self: Any) -> Any:
        token = self._get_param("ClientToken")
        names = ("ResourceIds", "ResourceType", "TrafficType", "LogDestination", "LogFormat", "MaxAggregationInterval")
        key, request = (self.current_account, self.region, token), [self._get_param(name) for name in names]
        if token and key in answered:
            known, answer = answered[key]
            if known != request:
                raise EC2ClientError("IdempotentParameterMismatch", "The client token was used with other parameters")
            return answer
        answer = upstream(self)
        if token:
            answered[key] = (request, answer)
        return answer

    EC2Response.create_flow_logs = create_flow_logs

"""Clients with the credentials of a role session."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

from .stack import OURSELVES, LocalStack


def client_with(stack: LocalStack, given: dict[str, Any], service: str) -> Any:
    """A client of moto with the `Credentials` that AssumeRole gave."""
    keys = {"aws_access_key_id": given["AccessKeyId"], "aws_secret_access_key": given["SecretAccessKey"], "aws_session_token": given["SessionToken"]}
    agent = Config(user_agent_appid=OURSELVES)
    return boto3.client(service, endpoint_url=stack.moto.endpoint, region_name=stack.region, config=agent, **keys)

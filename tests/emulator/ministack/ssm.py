"""Systems Manager: documents in templates. moto plays the service, so they are created there."""

from __future__ import annotations

import json
import os
from typing import Any

import boto3
from ministack.core.responses import get_account_id, get_region
from ministack.services.cloudformation import provisioners

from emulator.patches import patch


@patch("AWSCloudFormation/latest/TemplateReference/aws-resource-ssm-document.html")
def documents_in_templates() -> None:
    """A document is created with its stack, gets a new version by an update, and is deleted with the stack; `Ref` is its name.

    ministack does not have `AWS::SSM::Document`.
    """

    def client() -> Any:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_SSM")
        return boto3.client("ssm", endpoint_url=endpoint, region_name=get_region(), aws_access_key_id=get_account_id(), aws_secret_access_key="test")

    def create(logical_id: str, properties: dict[str, Any], stack_name: str) -> tuple[str, dict[str, Any]]:
        name = properties.get("Name") or f"{stack_name}-{logical_id}"
        kept = {key: properties[key] for key in ("DocumentType", "DocumentFormat", "TargetType") if key in properties}
        client().create_document(Name=name, Content=json.dumps(properties["Content"]), **kept)
        return name, {}

    def update(name: str, _: dict[str, Any], properties: dict[str, Any], *__: Any) -> tuple[str, dict[str, Any]]:
        made = client().update_document(Name=name, Content=json.dumps(properties["Content"]), DocumentVersion="$LATEST", DocumentFormat="JSON")
        client().update_document_default_version(Name=name, DocumentVersion=made["DocumentDescription"]["DocumentVersion"])
        return name, {}

    def delete(name: str, _: dict[str, Any]) -> None:
        client().delete_document(Name=name)

    provisioners._RESOURCE_HANDLERS["AWS::SSM::Document"] = {"create": create, "update": update, "delete": delete}

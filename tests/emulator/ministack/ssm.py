"""Systems Manager's documents in a template: moto plays the service, so that is where they are made.

`mend_documents_in_templates` has a test in tests/emulator/tests/test_ssm.py; ministack 1.5.33 knows no AWS::SSM::Document.
"""

from __future__ import annotations

import json
import os
from typing import Any

import boto3
from ministack.core.responses import get_account_id, get_region
from ministack.services.cloudformation import provisioners


def mend_documents_in_templates() -> None:
    """AWS: a document is made with its stack, a new version of it with an update, and it goes with the stack; Ref is its name."""

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


MENDS = (mend_documents_in_templates,)

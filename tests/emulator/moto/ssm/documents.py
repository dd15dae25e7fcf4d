"""Systems Manager: documents."""

from __future__ import annotations

import json
from typing import Any

from moto.ssm.models import SimpleSystemManagerBackend

from emulator.patches import patch


@patch("AWSCloudFormation/latest/TemplateReference/aws-resource-ssm-document.html")
def content_as_map() -> None:
    """A document in a template has its content as a map or as text.

    moto keeps the map as it is, and then no call can read it.
    """
    upstream = SimpleSystemManagerBackend.create_document

    def create_document(self: Any, content: Any, *args: Any, **more: Any) -> Any:
        return upstream(self, json.dumps(content) if isinstance(content, dict) else content, *args, **more)

    SimpleSystemManagerBackend.create_document = create_document

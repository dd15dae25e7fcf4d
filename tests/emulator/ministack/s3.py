"""S3: buckets in templates."""

from __future__ import annotations

from typing import Any

from ministack.services import s3
from ministack.services.cloudformation import provisioners

from emulator.patches import patch


@patch(
    "AWSCloudFormation/latest/TemplateReference/aws-properties-s3-bucket-objectlockconfiguration.html",
    "AmazonS3/latest/userguide/object-lock.html",
)  # fmt: skip
def object_lock_in_templates() -> None:
    """A bucket of a template has its `ObjectLockConfiguration` from the start.

    ministack ignores it.
    """
    upstream = provisioners._s3_apply_configurations

    def apply(name: str, properties: dict[str, Any], *args: Any) -> None:
        upstream(name, properties, *args)
        lock = properties.get("ObjectLockConfiguration") or {}
        if lock or str(properties.get("ObjectLockEnabled")).lower() == "true":
            retention = dict((lock.get("Rule") or {}).get("DefaultRetention") or {})
            whole = {unit: int(length) if unit in ("Days", "Years") else length for unit, length in retention.items()}
            s3._bucket_object_lock[name] = {"enabled": True, "default_retention": whole or None}

    provisioners._s3_apply_configurations = apply

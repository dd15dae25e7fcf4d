"""S3: buckets in templates."""

from __future__ import annotations

import json

import pytest

from support.stack import LocalStack

proves = pytest.mark.proves

@proves("ministack.s3.object_lock_in_templates")
def test_object_lock_of_a_template_is_in_force(bare_stack: LocalStack) -> None:
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": {"Ref": "Days"}}}
    lock = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    bucket = {"BucketName": "evidence", "ObjectLockEnabled": True, "VersioningConfiguration": {"Status": "Enabled"}}
    properties = {**bucket, "ObjectLockConfiguration": lock}
    template = {"Parameters": {"Days": {"Type": "Number", "Default": 9}}, "Resources": {"B": {"Type": "AWS::S3::Bucket", "Properties": properties}}}
    cloudformation, s3 = bare_stack.client("cloudformation"), bare_stack.client("s3")
    cloudformation.create_stack(StackName="lock", TemplateBody=json.dumps(template))
    cloudformation.get_waiter("stack_create_complete").wait(StackName="lock", WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    configured = s3.get_object_lock_configuration(Bucket="evidence")["ObjectLockConfiguration"]
    assert configured["Rule"]["DefaultRetention"] == {"Mode": "GOVERNANCE", "Days": 9}
    s3.put_object(Bucket="evidence", Key="one", Body=b"x", ChecksumAlgorithm="SHA256")
    assert s3.get_object_retention(Bucket="evidence", Key="one")["Retention"]["Mode"] == "GOVERNANCE"

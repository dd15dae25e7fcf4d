"""Cordon deployed from a package that is made once: `sam deploy` zips 500 MB anew for each of the tests' stacks.

The zips hold the very files that `sam build` has left in .aws-sam/build. The drill and the fleets' tests use `sam deploy`.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .stack import PROJECT, LocalStack, StackError

BUILD = PROJECT / ".aws-sam" / "build"
PACKAGES = PROJECT / ".local" / "packages"
BUCKET, STACK, CHANGE_SET = "cordon-package", "cordon", "all"


def deploy_package(stack: LocalStack, parameters: dict[str, str]) -> None:
    """By way of a change set, as `sam deploy` does it."""
    if not (BUILD / "template.yaml").exists():
        raise StackError("nothing is built: make build")
    cloudformation, s3 = stack.client("cloudformation"), stack.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": stack.region})
    template = (BUILD / "template.yaml").read_text(encoding="utf-8")
    local = sorted(set(re.findall(r"^ +(?:CodeUri|DefinitionUri): (\S+)$", template, re.MULTILINE)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        packages = dict(zip(local, pool.map(lambda name: package(BUILD / name), local)))
    for name, path in packages.items():
        s3.put_object(Bucket=BUCKET, Key=path.name, Body=path.read_bytes())
        template = re.sub(rf"Uri: {re.escape(name)}$", f"Uri: s3://{BUCKET}/{path.name}", template, flags=re.MULTILINE)
    s3.put_object(Bucket=BUCKET, Key="template.yaml", Body=template.encode())
    cloudformation.create_change_set(
        StackName=STACK, ChangeSetName=CHANGE_SET, ChangeSetType="CREATE", TemplateURL=f"{stack.ministack.endpoint}/{BUCKET}/template.yaml",
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
    )  # fmt: skip
    often = {"Delay": 0.2, "MaxAttempts": 600}
    cloudformation.get_waiter("change_set_create_complete").wait(StackName=STACK, ChangeSetName=CHANGE_SET, WaiterConfig=often)
    cloudformation.execute_change_set(StackName=STACK, ChangeSetName=CHANGE_SET)
    cloudformation.get_waiter("stack_create_complete").wait(StackName=STACK, WaiterConfig=often)
    stack.read_outputs(STACK)


def package(path: Path) -> Path:
    """A file as it is, or a folder's zip, which is named by what the folder holds."""
    if path.is_file():
        return path.resolve()
    files = sorted(one for one in path.rglob("*") if one.is_file())
    held = hashlib.sha256()
    for one in files:
        held.update(f"{one.relative_to(path)} {hashlib.sha256(one.read_bytes()).hexdigest()}\n".encode())
    found = PACKAGES / f"{held.hexdigest()}.zip"
    if not found.exists():
        PACKAGES.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=PACKAGES, delete=False) as new, zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for one in files:
                archive.write(one, one.relative_to(path))
        os.replace(new.name, found)  # at once: other workers look for it too
    return found

"""Cordon deployed from a package that is made once: `sam deploy` zips 500 MB anew for each of the tests' stacks.

The zips hold the very files that `sam build` has left in .aws-sam/build. The drill and the fleets' tests use `sam deploy`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .stack import PACKAGES, PROJECT, LocalStack, StackError

BUILD = PROJECT / ".aws-sam" / "build"
BUCKET, STACK, CHANGE_SET = "cordon-package", "cordon", "all"


def deploy_package(stack: LocalStack, parameters: dict[str, str]) -> None:
    """By way of a change set, as `sam deploy` does it."""
    if not (BUILD / "template.yaml").exists():
        raise StackError("nothing is built: make build")
    cloudformation, s3 = stack.client("cloudformation"), stack.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": stack.region})
    template = (BUILD / "template.yaml").read_text(encoding="utf-8")
    local = re.compile(r"^( +(?:CodeUri|DefinitionUri|TemplateURL): )(\S+)$", re.MULTILINE)
    uploaded = {}
    for name, path in packages({name for _, name in local.findall(template)}).items():
        place = f"{BUCKET}/{path.name}"
        s3.put_object(Bucket=BUCKET, Key=path.name, Body=path.read_bytes())
        uploaded[name] = f"https://s3.{stack.region}.amazonaws.com/{place}" if name.endswith("/template.yaml") else f"s3://{place}"
    template = local.sub(lambda found: found[1] + uploaded[found[2]], template)
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


def packages(names: set[str]) -> dict[str, Path]:
    """Each file and folder of the build, packed. The first worker to come packs; the others wait for it."""
    PACKAGES.mkdir(parents=True, exist_ok=True)
    with (PACKAGES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        forget_old_ones()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return dict(zip(sorted(names), pool.map(lambda name: package(BUILD / name), sorted(names))))


def forget_old_ones() -> None:
    """Those of a build of yesterday; what is still needed is made again."""
    for old in (*PACKAGES.glob("*.*"), *PACKAGES.glob("code/*")):
        if time.time() - old.stat().st_mtime > 86_400:
            shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)


def package(path: Path) -> Path:
    """A copy of the file, or a zip of the folder, named by what is in it."""
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    held = hashlib.sha256()
    for one in files:
        held.update(f"{one.relative_to(path.parent)} {hashlib.sha256(one.read_bytes()).hexdigest()}\n".encode())
    packed = PACKAGES / f"{held.hexdigest()}{'.zip' if path.is_dir() else path.suffix}"
    if not packed.exists():
        new = packed.with_suffix(".new")
        if path.is_dir():
            with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for one in files:
                    archive.write(one, one.relative_to(path))
        else:
            shutil.copyfile(path, new)
        new.replace(packed)
    return packed

"""STS: the account of an access key, and who may assume a role."""

from __future__ import annotations

import json
import re
from typing import Any, Iterator

from moto.core.responses import BaseResponse
from moto.iam import iam_backends
from moto.iam import models as iam
from moto.iam.exceptions import NotFoundException
from moto.sts import sts_backends
from moto.sts.responses import TokenResponse

from emulator.faults import Fault
from emulator.patches import instrument, patch

SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
EVALUATED = ("sts:externalid", "sts:rolesessionname", "aws:tagkeys", "aws:requesttag/", "aws:principalaccount")


@instrument
def account_of_key() -> None:
    """An access key of 12 digits belongs to the account of that number, as in ministack.

    moto sees only keys of 20 letters, and takes every key that it did not create for one of its default account.
    """
    upstream = iam.get_account_id_from
    BaseResponse.access_key_regex = re.compile(r"Credential=([^/]+)/")
    iam.get_account_id_from = lambda key: key if re.fullmatch(r"\d{12}", key) else upstream(key)


@patch(
    "STS/latest/APIReference/API_AssumeRole.html", "IAM/latest/UserGuide/id_session-tags.html",
    upstream=("getmoto/moto#6793", "getmoto/moto#8680"),
)  # fmt: skip
def assume_role() -> None:
    """A role can be assumed by those its trust policy names, under its conditions; session tags need `sts:TagSession` there too.

    moto, by design, grants every role to everyone, even a role that does not exist. The caller's own policies are not
    evaluated here: static/test_template.py does that.
    """
    upstream = TokenResponse.assume_role

    def assume(self: TokenResponse) -> Any:
        arn, name = self._get_param("RoleArn"), self._get_param("RoleSessionName") or ""
        if not SESSION_NAME.fullmatch(name):
            pattern = r"Member must satisfy regular expression pattern: [\w+=,.@-]*"
            return refused(400, "ValidationError", f"Value '{name}' at 'roleSessionName' failed to satisfy constraint: {pattern}")
        needed = ["sts:AssumeRole", *(["sts:TagSession"] if self._get_param("Tags") else [])]
        trust, caller, context = trust_of(arn), Caller(self), context_of(self)
        for action in needed:
            if not allows(trust, action, caller, context):
                return refused(403, "AccessDenied", f"User: {caller.arn} is not authorized to perform: {action} on resource: {arn}")
        return upstream(self)

    TokenResponse.assume_role = assume


def refused(status: int, code: str, message: str) -> tuple[int, dict[str, Any], str]:
    status, content_type, body = Fault("sts", "AssumeRole", code, status, message).answer("sts")
    return status, {"status": status, "Content-Type": content_type}, body.decode()


class Caller:
    """Who calls. All functions of an account share its key here, so any principal of the account may be the caller."""

    def __init__(self, request: TokenResponse) -> None:
        session = request.backend.get_assumed_role_from_access_key(request.get_access_key())
        self.account = request.current_account
        self.arn = request.backend.get_caller_identity(request.get_access_key(), request.region)[1]
        self._own = {session.arn, session.role_arn} if session else None

    def is_named_by(self, principal: Any) -> bool:
        named = principal if isinstance(principal, str) else principal.get("AWS", [])
        return any(self._is(one) for one in listed(named))

    def _is(self, principal: str) -> bool:
        if principal in ("*", self.account, f"arn:aws:iam::{self.account}:root"):
            return True
        of_account = re.fullmatch(rf"arn:aws:(iam|sts)::{self.account}:.+", principal) is not None
        return of_account if self._own is None else principal in self._own


def session_of(key: str) -> str | None:
    """The name of the role session that an access key belongs to; none for an account's own key."""
    sessions = sts_backends[iam.get_account_id_from(key)]["aws"]
    session = sessions.get_assumed_role_from_access_key(key)
    return session.session_name if session else None


def trust_of(arn: str) -> dict[str, Any]:
    """The trust policy of the role with this path and name; a policy that allows nothing if there is no such role."""
    account = arn.split(":")[4] if arn.count(":") >= 5 else ""
    try:
        document = iam_backends[account]["aws"].get_role_by_arn(arn).assume_role_policy_document
    except (KeyError, NotFoundException):
        return {"Statement": []}
    return json.loads(document)


def context_of(request: TokenResponse) -> dict[str, list[str]]:
    """The condition keys of the call, in lower case; an absent one is not there."""
    tags = request._get_param("Tags") or []
    context = {
        "sts:externalid": [request._get_param("ExternalId")], "sts:rolesessionname": [request._get_param("RoleSessionName")],
        "aws:principalaccount": [request.current_account], "aws:tagkeys": [tag["Key"] for tag in tags],
        **{f"aws:requesttag/{tag['Key'].lower()}": [tag["Value"]] for tag in tags},
    }  # fmt: skip
    return {key: values for key, values in context.items() if values and values[0] is not None}


def allows(policy: dict[str, Any], action: str, caller: Caller, context: dict[str, list[str]]) -> bool:
    """A deny that applies overrides every allow."""
    applying = [statement for statement in listed(policy["Statement"]) if applies(statement, action, caller, context)]
    return bool(applying) and all(statement["Effect"] == "Allow" for statement in applying)


def applies(statement: dict[str, Any], action: str, caller: Caller, context: dict[str, list[str]]) -> bool:
    """Condition keys that cannot be known here (aws:PrincipalArn, aws:PrincipalOrgID) count as met in an allow and as not met in a deny."""
    if not any(like(action.lower(), pattern.lower()) for pattern in listed(statement["Action"])):
        return False
    if not caller.is_named_by(statement["Principal"]):
        return False
    unknown = statement["Effect"] == "Allow"
    return all(
        holds(operator, key, values, context) if key.startswith(EVALUATED) else unknown for operator, key, values in conditions(statement)
    )


def conditions(statement: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    for operator, keys in statement.get("Condition", {}).items():
        for key, values in keys.items():
            yield operator, key.lower(), [str(value) for value in listed(values)]


def holds(operator: str, key: str, wanted: list[str], context: dict[str, list[str]]) -> bool:
    found = context.get(key)
    if operator == "Null":
        return (found is None) == (wanted[0].lower() == "true")
    quantifier, _, comparison = operator.rpartition(":")
    comparison, optional = comparison.removesuffix("IfExists"), comparison.endswith("IfExists")
    if comparison not in ("StringEquals", "StringLike", "ArnEquals", "ArnLike"):
        raise NotImplementedError(f"condition operator {operator} in a trust policy")
    if found is None:
        return optional or quantifier == "ForAllValues"
    matches = str.__eq__ if comparison == "StringEquals" else like
    met = [any(matches(value, pattern) for pattern in wanted) for value in found]
    return any(met) if quantifier == "ForAnyValue" else all(met)


def like(value: str, pattern: str) -> bool:
    """IAM's wildcards: an asterisk for any text, a question mark for one letter."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), value, re.DOTALL) is not None


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]

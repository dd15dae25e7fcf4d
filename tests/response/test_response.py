"""From a finding, or a person, to a containment, a question or nothing: whole executions on the local stack.

Each test builds its own victims. Whoever answers a question here pastes a command of the message that asks.
"""

from __future__ import annotations

import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Callable, Iterator

import pytest
from botocore.exceptions import ClientError

from support import findings
from support.containment import contain, isolated, journal
from support.findings import guardduty_finding
from support.inbox import Inbox, paste
from support.stack import ACCOUNT, PROJECT, REGION, Execution, LocalStack, StackError, last_output_of
from support.victim import Victim, bare_instance, build_victims, snapshot_of_world

RECORDED = PROJECT / "crates" / "finding" / "src" / "recorded"
MACHINE = "cordon-drill"
SILENCE = 3  # seconds that nobody answers in; the parameter's least is a minute
INSTANCE = "i-0123456789abcdef0"
DISTURBING = ("detach-autoscaling", "isolate-network", "deregister-targets", "revoke-credentials", "detach-profile")

Event = dict[str, Any]


@pytest.fixture(autouse=True)
def nothing_left_running(stack: LocalStack) -> Iterator[None]:
    """Questions that a test leaves open would be open for an hour."""
    yield
    states = stack.client("stepfunctions")
    running = states.list_executions(stateMachineArn=stack.outputs["StateMachineArn"], statusFilter="RUNNING")["executions"]
    for execution in running:
        states.stop_execution(executionArn=execution["executionArn"])


@pytest.fixture
def contain_mode(stack: LocalStack) -> Iterator[None]:
    with stack.reconfigured("intake", RESPONSE_MODE="Contain", INSTANCES_PER_HOUR="1000"):
        yield


# --- How the stack is set ----------------------------------------------------------------------------------------


@contextmanager
def silence(stack: LocalStack, then: str) -> Iterator[None]:
    """ApprovalTimeout is SILENCE seconds, and OnApprovalTimeout what is said: both are texts in the state machine."""
    states, machine = stack.client("stepfunctions"), {"stateMachineArn": stack.outputs["StateMachineArn"]}
    before = states.describe_state_machine(**machine)["definition"]
    new = before
    for old, text in (("{% 3600 %}", f"{{% {SILENCE} %}}"), ("within 3600 seconds", f"within {SILENCE} seconds"), ("DoNotContain", then)):
        assert old in new
        new = new.replace(old, text)
    states.update_state_machine(**machine, definition=new)
    try:
        yield
    finally:
        states.update_state_machine(**machine, definition=before)


def lay_down(stack: LocalStack, victim: Victim, rule: str, reason: str) -> None:
    """A guardrail, as responders put it into the case table."""
    record = {"Instance": f"{ACCOUNT}/{REGION}/{victim.instance}", "Record": "guardrail", "Rule": rule, "Reason": reason}
    stack.client("dynamodb").put_item(TableName=stack.outputs["CaseTableName"], Item={name: {"S": value} for name, value in record.items()})


# --- Events ------------------------------------------------------------------------------------------------------


def recorded(name: str) -> Event:
    """An event, or a finding, as another project has published it."""
    found = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    return {"source": "aws.guardduty", "detail-type": "GuardDuty Finding", "detail": found[0]} if isinstance(found, list) else found


def finding(victim: Victim, **detail: Any) -> Event:
    return guardduty_finding(victim.instance, **detail)


def again(event: Event) -> Event:
    """GuardDuty repeats a finding that goes on: the same id, counted up."""
    service = {**event["detail"]["service"], "count": 2, "eventLastSeen": "2026-11-21T04:00:00.000Z"}
    return {**event, "detail": {**event["detail"], "service": service, "updatedAt": "2026-11-21T04:05:00.000Z"}}


def attack_sequence(victims: list[Victim]) -> Event:
    return findings.attack_sequence(*((ACCOUNT, REGION, victim.instance) for victim in victims))


def custom_action(*named: list[str], action: str = "CordonContain") -> Event:
    """The button in Security Hub, pressed for as many findings, each about these instances."""

    def asff(instances: list[str]) -> dict[str, Any]:
        id_ = f"arn:aws:guardduty:{REGION}:{ACCOUNT}:detector/d/finding/{uuid.uuid4().hex}"
        resources = [{"Type": "AwsEc2Instance", "Id": f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{one}"} for one in instances]
        return {"Id": id_, "ProductArn": f"arn:aws:securityhub:{REGION}::product/aws/guardduty", "ProductName": "GuardDuty",
                "AwsAccountId": ACCOUNT, "Region": REGION, "Severity": {"Product": 2, "Normalized": 20, "Label": "LOW"},
                "Types": ["TTPs/Command and Control/Backdoor:EC2-C&CActivity.B!DNS"], "Title": "C&C activity", "RecordState": "ACTIVE",
                "Workflow": {"Status": "NEW"}, "Resources": resources or [{"Type": "AwsIamUser", "Id": "someone"}]}  # fmt: skip

    return {"source": "aws.securityhub", "detail-type": "Security Hub Findings - Custom Action",
            "resources": [f"arn:aws:securityhub:{REGION}:{ACCOUNT}:action/custom/{action}"],
            "detail": {"actionName": action, "findings": [asff(instances) for instances in named]}}  # fmt: skip


def start(stack: LocalStack, event: Event) -> str:
    """Puts the event on the bus and returns the execution that it starts."""
    known = stack.executions()
    stack.put_event(event)
    return stack.new_execution(known)


def respond(stack: LocalStack, event: Event) -> Execution:
    return stack.wait(start(stack, event))


# --- What a person does ------------------------------------------------------------------------------------------


def asked_about(inbox: Inbox, arn: str, victim: Victim, seconds: float = 20) -> dict[str, Any]:
    """The execution's question about the victim: the commands to paste, and what else there is to know for an answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for message in inbox.messages(arn, 0.2):
            if message.kind == "ApprovalRequested" and message.record["Instances"][0]["InstanceId"] == victim.instance:
                return message.record["Approval"]
    raise StackError(f"nobody was asked about {victim.instance} within {seconds:.0f} s; told: {told(inbox, arn)}")


def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def refusal(call: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    with pytest.raises(ClientError) as refused:
        call(*arguments, **named)
    return refused.value.response["Error"]["Code"]


# --- What is shown -----------------------------------------------------------------------------------------------


def case(stack: LocalStack, victim: Victim) -> dict[str, Any]:
    """The instance's open case."""
    return journal(stack, victim).get("case", {})


def told(inbox: Inbox, arn: str) -> list[str]:
    return [message.kind for message in inbox.messages(arn)]


def workload(world: dict[str, Any]) -> dict[str, Any]:
    """All that a running service notices."""
    return {name: world[name] for name in ("State", "Groups", "Rules", "AutoScaling", "Targets", "ClassicLoadBalancers", "Profile", "RolePolicies")}


def originals(stack: LocalStack, victim: Victim) -> list[str]:
    """The volumes of all snapshots that are no copies."""
    snapshots = snapshot_of_world(stack, victim)["Snapshots"].values()
    return sorted(one["VolumeId"] for one in snapshots if "SourceSnapshotId" not in one["Tags"])


def reasons(execution: Execution) -> str:
    return "\n".join(one["Reason"] for one in execution.outcome["LeftOut"])


def assert_nothing_done(execution: Execution, because: str) -> None:
    assert execution.status == "SUCCEEDED", execution.cause
    assert execution.output["Verdict"] == "NothingDone" and execution.output["Instances"] == []
    assert because in reasons(execution) and because in execution.output["Table"]


# --- In contain mode ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("contain_mode")
def test_in_contain_mode_a_finding_leads_to_a_contained_instance_and_nobody_is_asked(stack: LocalStack, inbox: Inbox) -> None:
    (victim,) = build_victims(stack)
    before, event = snapshot_of_world(stack, victim), finding(victim)
    execution = respond(stack, event)
    after = snapshot_of_world(stack, victim)
    assert execution.status == "SUCCEEDED", execution.cause
    assert execution.instance(victim.instance)["Verdict"] == "Contained"
    assert isolated(stack, victim)
    assert before["AutoScaling"] and before["Targets"] and before["ClassicLoadBalancers"] and before["Profile"]
    assert [after[name] for name in ("AutoScaling", "Targets", "ClassicLoadBalancers", "Profile")] == [None, [], [], None]
    assert originals(stack, victim) == sorted(victim.volumes.values())
    assert told(inbox, execution.arn) == ["ContainmentStarted", "Contained"]
    assert {one.record["Trigger"]["Findings"][0]["Id"] for one in inbox.messages(execution.arn)} == {event["detail"]["arn"]}
    kept = case(stack, victim)
    assert (kept["Execution"], kept["Verdict"], kept["Findings"]) == (execution.arn, "Contained", [event["detail"]["arn"]])
    assert "Approval" not in kept


@pytest.mark.usefixtures("contain_mode")
def test_a_finding_that_repeats_about_a_contained_instance_changes_nothing_and_a_new_one_joins_the_case(stack: LocalStack, inbox: Inbox) -> None:
    (victim,) = build_victims(stack)
    first, new = finding(victim), finding(victim)
    respond(stack, first)
    world, kept, now = snapshot_of_world(stack, victim), case(stack, victim), time.time()
    repeated = respond(stack, again(first))
    assert_nothing_done(repeated, f"its case {kept['CaseId']} is open, with the verdict Contained")
    assert told(inbox, repeated.arn) == [] and case(stack, victim) == kept
    added = respond(stack, new)
    assert_nothing_done(added, "the finding is added to its case")
    assert told(inbox, added.arn) == ["NothingDone"]
    assert sorted(case(stack, victim)["Findings"]) == sorted([first["detail"]["arn"], new["detail"]["arn"]])
    assert stack.changes(now) == [] and snapshot_of_world(stack, victim) == world


# --- A question and its answers ----------------------------------------------------------------------------------


def test_until_a_person_has_answered_only_what_disturbs_nobody_is_done(stack: LocalStack, inbox: Inbox) -> None:
    (victim,) = build_victims(stack)
    before = snapshot_of_world(stack, victim)
    arn = start(stack, finding(victim))
    asked = asked_about(inbox, arn, victim)
    after = snapshot_of_world(stack, victim)
    assert workload(after) == workload(before)
    assert after["Protection"] == {"disableApiTermination": True, "disableApiStop": True, "instanceInitiatedShutdownBehavior": "stop"}
    assert not any(after["VolumesDeletedWithInstance"].values()) and not any(after["InterfacesDeletedWithInstance"].values())
    assert all(after["Tags"][one]["SecurityIncidentStatus"] == "Investigation" for one in (victim.instance, *victim.volumes.values()))
    assert originals(stack, victim) == sorted(victim.volumes.values())
    assert case(stack, victim)["Approval"] == "Pending"
    assert "RequestApproval" in asked["Reason"] and (asked["TimeoutSeconds"], asked["OnApprovalTimeout"]) == (3600, "DoNotContain")


def test_an_approval_contains_the_instance_and_the_report_has_what_was_there_before(stack: LocalStack, inbox: Inbox) -> None:
    (victim,) = build_victims(stack)
    before = snapshot_of_world(stack, victim)
    arn = start(stack, finding(victim))
    paste(stack, asked_about(inbox, arn, victim)["Approve"])
    execution = stack.wait(arn)
    assert execution.status == "SUCCEEDED", execution.cause
    assert execution.instance(victim.instance)["Verdict"] == "Contained"
    assert execution.step(victim.instance, "request-approval")["Reason"] == "a person approved it"
    assert isolated(stack, victim) and snapshot_of_world(stack, victim)["Profile"] is None
    found = {name: {one["Resource"]: one["Before"] for one in execution.step(victim.instance, name)["Changes"]} for name in DISTURBING}
    assert {interface: found["isolate-network"][interface] for interface in victim.interfaces} == before["Groups"]
    assert [one["ProfileArn"] for one in found["detach-profile"].values()] == [before["Profile"]]
    assert found["detach-autoscaling"][victim.auto_scaling_group]["LifecycleState"] == "InService"
    assert {one["Id"] for one in found["deregister-targets"].values()} == {victim.instance, victim.private_ip}
    assert found["revoke-credentials"] == {victim.role: None}
    assert originals(stack, victim) == sorted(victim.volumes.values()), "one set, although the execution asked again"
    assert told(inbox, arn) == ["ContainmentStarted", "ApprovalRequested", "Contained"]
    assert (case(stack, victim)["Approval"], case(stack, victim)["Verdict"]) == ("Approved", "Contained")


def test_a_refusal_disturbs_nothing_and_stands_for_its_finding_and_for_no_other(stack: LocalStack, inbox: Inbox) -> None:
    (victim,) = build_victims(stack)
    before, event = snapshot_of_world(stack, victim), finding(victim)
    arn = start(stack, event)
    paste(stack, asked_about(inbox, arn, victim)["Refuse"])
    execution, now = stack.wait(arn), time.time()
    assert execution.status == "SUCCEEDED", execution.cause
    assert (execution.output["Verdict"], execution.instance(victim.instance)["Verdict"]) == ("NotApproved", "NotApproved")
    assert "a person refused to contain it: why" in execution.output["Table"]
    assert told(inbox, arn) == ["ContainmentStarted", "ApprovalRequested", "NotApproved"]
    repeated = respond(stack, again(event))
    assert_nothing_done(repeated, "a person refused to contain it for this finding")
    assert told(inbox, repeated.arn) == [] and stack.changes(now) == []
    assert asked_about(inbox, start(stack, finding(victim)), victim)["Approve"]
    assert workload(snapshot_of_world(stack, victim)) == workload(before)


def test_no_answer_but_a_clear_yes_contains(stack: LocalStack, inbox: Inbox) -> None:
    answers = ("{}", "null", "[]", '"Approved"', '{"Approved":"true"}', '{"approved":true}', '{"Approved":1}')
    victims = [bare_instance(stack) for _ in answers]
    before = [workload(snapshot_of_world(stack, victim)) for victim in victims]
    started = [start(stack, finding(victim)) for victim in victims]
    for arn, victim, answer in zip(started, victims, answers):
        stack.client("stepfunctions").send_task_success(taskToken=asked_about(inbox, arn, victim)["Token"], output=answer)
    verdicts = {answer: stack.wait(arn).outcome["Verdict"] for answer, arn in zip(answers, started)}
    assert verdicts == dict.fromkeys(answers, "NotApproved")
    assert [workload(snapshot_of_world(stack, victim)) for victim in victims] == before


def test_an_answer_that_comes_twice_or_late_has_no_effect(stack: LocalStack, inbox: Inbox) -> None:
    refused, approved = build_victims(stack, 2)
    arns = {victim.instance: start(stack, finding(victim)) for victim in (refused, approved)}
    questions = {victim.instance: asked_about(inbox, arns[victim.instance], victim) for victim in (refused, approved)}
    paste(stack, questions[refused.instance]["Refuse"])
    assert refusal(paste, stack, questions[refused.instance]["Approve"]) == "TaskTimedOut"
    paste(stack, questions[approved.instance]["Approve"])
    assert refusal(paste, stack, questions[approved.instance]["Refuse"]) == "TaskTimedOut"
    verdicts = {victim.instance: stack.wait(arns[victim.instance]).output["Verdict"] for victim in (refused, approved)}
    assert verdicts == {refused.instance: "NotApproved", approved.instance: "Contained"}
    now = time.time()
    for asked in questions.values():
        assert {refusal(paste, stack, asked[answer]) for answer in ("Approve", "Refuse")} == {"TaskTimedOut"}
    assert stack.changes(now) == [] and case(stack, refused)["Approval"] == "Refused"


def test_of_an_attack_sequence_each_instance_is_a_question_of_its_own(stack: LocalStack, inbox: Inbox) -> None:
    approved, refused = build_victims(stack, 2)
    before = snapshot_of_world(stack, refused)
    arn = start(stack, attack_sequence([approved, refused]))
    paste(stack, asked_about(inbox, arn, refused)["Refuse"])
    paste(stack, asked_about(inbox, arn, approved)["Approve"])
    execution = stack.wait(arn)
    assert (execution.status, execution.output["Verdict"]) == ("SUCCEEDED", "NotApproved")
    assert [one["Verdict"] for one in execution.output["Instances"]] == ["Contained", "NotApproved"]
    assert isolated(stack, approved) and not isolated(stack, refused)
    after = workload(snapshot_of_world(stack, refused))
    assert after.pop("RolePolicies").keys() == {"shop", f"cordon-deny-{approved.instance}"}, "they share a role; the deny names one instance"
    assert after == {name: value for name, value in workload(before).items() if name != "RolePolicies"}


# --- Silence -----------------------------------------------------------------------------------------------------


def test_without_an_answer_the_instance_stays_as_it_is_and_the_execution_fails(stack: LocalStack, inbox: Inbox) -> None:
    (victim,) = build_victims(stack)
    before, event = snapshot_of_world(stack, victim), finding(victim)
    with silence(stack, "DoNotContain"):
        execution = respond(stack, event)
    assert (execution.status, execution.error) == ("FAILED", "NotContained")
    assert f"nobody answered within {SILENCE} seconds, and OnApprovalTimeout is DoNotContain" in execution.cause
    assert workload(snapshot_of_world(stack, victim)) == workload(before)
    assert case(stack, victim)["Approval"] == "Unanswered"
    assert asked_about(inbox, start(stack, again(event)), victim)["Approve"], "asked again when the finding comes again"


def test_without_an_answer_the_instance_is_contained_where_the_operator_has_said_so(stack: LocalStack) -> None:
    (victim,) = build_victims(stack)
    with silence(stack, "Contain"):
        execution = respond(stack, finding(victim))
    assert execution.status == "SUCCEEDED", execution.cause
    assert execution.instance(victim.instance)["Verdict"] == "Contained"
    assert f"nobody answered within {SILENCE} seconds, and OnApprovalTimeout is Contain" in execution.output["Table"]
    assert isolated(stack, victim)


def test_an_answer_that_is_neither_yes_nor_no_is_not_taken_for_silence(stack: LocalStack, inbox: Inbox) -> None:
    victim = bare_instance(stack)
    before = workload(snapshot_of_world(stack, victim))
    with silence(stack, "Contain"):
        arn = start(stack, finding(victim))
        token = asked_about(inbox, arn, victim)["Token"]
        stack.client("stepfunctions").send_task_failure(taskToken=token, error="NotNow", cause="call me first")
        execution = stack.wait(arn)
    assert (execution.status, execution.error) == ("FAILED", "NotContained")
    assert "NotNow: call me first" in execution.cause
    assert workload(snapshot_of_world(stack, victim)) == before and case(stack, victim)["Approval"] == "Unanswered"


# --- Who holds the case ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["by hand", "the button"])
def test_a_person_who_starts_it_does_not_wait_for_the_answer_and_the_answer_then_does_nothing(stack: LocalStack, inbox: Inbox, how: str) -> None:
    (victim,) = build_victims(stack)
    waiting = start(stack, finding(victim))
    asked = asked_about(inbox, waiting, victim)
    taking = paste(stack, asked["ContainByHand"])["executionArn"] if how == "by hand" else start(stack, custom_action([victim.instance]))
    contained = stack.wait(taking)
    assert contained.status == "SUCCEEDED", contained.cause
    assert contained.instance(victim.instance)["Verdict"] == "Contained" and isolated(stack, victim)
    assert originals(stack, victim) == sorted(victim.volumes.values()), "one set for both executions"
    kept, now = case(stack, victim), time.time()
    paste(stack, asked["Approve"])
    answered = stack.wait(waiting)
    assert answered.status == "SUCCEEDED", answered.cause
    assert "another execution has taken the case over" in answered.step(victim.instance, "request-approval")["Reason"]
    assert stack.changes(now) == [] and case(stack, victim) == kept
    assert (kept["Execution"], kept["Verdict"]) == (taking, "Contained")


def test_while_a_question_is_open_another_finding_joins_the_case_and_nobody_is_asked_twice(stack: LocalStack, inbox: Inbox) -> None:
    (victim,) = build_victims(stack)
    first, other = finding(victim), finding(victim)
    waiting = start(stack, first)
    asked_about(inbox, waiting, victim)
    repeated, added = respond(stack, again(first)), respond(stack, other)
    for execution in (repeated, added):
        assert_nothing_done(execution, f"execution {waiting} has asked for approval and is waiting for the answer")
    assert (told(inbox, repeated.arn), told(inbox, added.arn)) == ([], ["NothingDone"])
    assert sorted(case(stack, victim)["Findings"]) == sorted([first["detail"]["arn"], other["detail"]["arn"]])
    assert case(stack, victim)["Execution"] == waiting


def test_a_dry_run_while_a_question_is_open_leaves_the_question_open(stack: LocalStack, inbox: Inbox) -> None:
    (victim,) = build_victims(stack)
    waiting = start(stack, finding(victim))
    asked = asked_about(inbox, waiting, victim)
    until(lambda: last_output_of("Evidence outcomes", stack.history(waiting)))
    kept, now = case(stack, victim), time.time()
    planned = contain(stack, victim.instance, DryRun=True)
    assert planned.status == "SUCCEEDED" and planned.output["Verdict"] == "Planned"
    assert stack.changes(now) == [] and case(stack, victim) == kept
    paste(stack, asked["Refuse"])
    assert stack.wait(waiting).output["Verdict"] == "NotApproved"


def by_hand(stack: LocalStack, victim: Victim) -> str:
    return stack.begin({"InstanceIds": [victim.instance], "Region": stack.region})


def twice(stack: LocalStack, begin: Callable[[LocalStack, Victim], Any], victims: list[Victim]) -> list[Execution]:
    """Starts two executions for each victim, all at the same moment, and waits for their ends."""
    known = set(stack.executions())
    with ThreadPoolExecutor(2 * len(victims)) as at_once:
        list(at_once.map(lambda victim: begin(stack, victim), victims * 2))
    until(lambda: len(stack.executions()) == len(known) + 2 * len(victims))
    return [stack.wait(arn) for arn in set(stack.executions()) - known]


def assert_one_acts(executions: list[Execution], victim: Victim) -> None:
    """Exactly one has contained the victim, and the other one says that it left it to that one."""
    acting = [one for one in executions if one.instance(victim.instance)]
    left = [one for one in executions if any(entry["InstanceId"] == victim.instance for entry in one.outcome["LeftOut"])]
    assert (len(acting), len(left)) == (1, 1)
    assert acting[0].status == "SUCCEEDED" and acting[0].instance(victim.instance)["Verdict"] == "Contained", acting[0].cause
    assert_nothing_done(left[0], f"execution {acting[0].arn} holds its case")


@pytest.mark.usefixtures("contain_mode")
@pytest.mark.parametrize("source", ["by hand", "by a finding"])
def test_of_two_executions_that_start_at_the_same_moment_one_contains_and_the_other_says_so(stack: LocalStack, source: str) -> None:
    """The latency makes the executions of half the victims both look before either acts."""
    victims = build_victims(stack, 4)
    events = {victim.instance: finding(victim) for victim in victims}
    begin = by_hand if source == "by hand" else lambda stack, victim: stack.put_event(events[victim.instance])
    stack.inject(*(late(victim) for victim in victims[:2]))
    executions = twice(stack, begin, victims)
    for victim in victims:
        assert_one_acts(executions, victim)
        assert isolated(stack, victim)
        assert originals(stack, victim) == sorted(victim.volumes.values())


def late(victim: Victim) -> dict[str, Any]:
    """What the case table has of the victim takes a while to read: two records, by two executions."""
    return {"Service": "dynamodb", "Action": "GetItem", "Resource": victim.instance, "DelaySeconds": 0.4, "Times": 4}


def test_of_two_executions_that_find_a_case_whose_holder_has_ended_one_takes_it(stack: LocalStack) -> None:
    victims = [bare_instance(stack) for _ in range(2)]
    contain(stack, *(victim.instance for victim in victims))
    now = time.time()
    stack.inject(*(late(victim) for victim in victims))
    executions = twice(stack, by_hand, victims)
    for victim in victims:
        assert_one_acts(executions, victim)
    assert stack.changes(now) == []


def test_when_the_holder_was_stopped_the_next_start_takes_the_case_over(stack: LocalStack, inbox: Inbox) -> None:
    victims = [bare_instance(stack), bare_instance(stack)]
    events = [finding(victim) for victim in victims]
    stopped = [start(stack, event) for event in events]
    questions = [asked_about(inbox, arn, victim) for arn, victim in zip(stopped, victims)]
    for arn, asked in zip(stopped, questions):
        stack.client("stepfunctions").stop_execution(executionArn=arn)
        assert refusal(paste, stack, asked["Approve"]) == "TaskTimedOut"
    following = [by_hand(stack, victims[0]), start(stack, again(events[1]))]
    paste(stack, asked_about(inbox, following[1], victims[1])["Approve"])
    for arn, victim in zip(following, victims):
        execution = stack.wait(arn)
        assert execution.status == "SUCCEEDED", execution.cause
        assert execution.instance(victim.instance)["Verdict"] == "Contained" and isolated(stack, victim)
        assert case(stack, victim)["Execution"] == arn
        assert originals(stack, victim) == sorted(victim.volumes.values())


@pytest.mark.usefixtures("contain_mode")
def test_a_lost_answer_of_the_case_table_loses_no_finding(stack: LocalStack) -> None:
    """It has opened the case of one victim, and given over that of the other, when its answer is lost."""
    opened, taken = bare_instance(stack), bare_instance(stack)
    stopped = by_hand(stack, taken)
    until(lambda: case(stack, taken))
    stack.client("stepfunctions").stop_execution(executionArn=stopped)
    lost = {"Service": "dynamodb", "Code": "InternalServerError", "Status": 500, "Times": 1, "Executed": True}
    stack.inject({**lost, "Action": "PutItem", "Resource": opened.instance}, {**lost, "Action": "UpdateItem", "Resource": taken.instance})
    for arn, victim in [(start(stack, finding(victim)), victim) for victim in (opened, taken)]:
        execution = stack.wait(arn)
        assert execution.status == "SUCCEEDED", execution.cause
        assert execution.output["Verdict"] == "Contained", execution.output["Table"]
        assert isolated(stack, victim)


# --- Guardrails --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("contain_mode")
def test_a_protected_instance_is_a_question_even_in_contain_mode(stack: LocalStack, inbox: Inbox) -> None:
    victim = bare_instance(stack)
    before = workload(snapshot_of_world(stack, victim))
    lay_down(stack, victim, "Protected", "it runs the payroll")
    asked = asked_about(inbox, start(stack, finding(victim)), victim)
    assert "on the list of protected instances: it runs the payroll" in asked["Reason"]
    assert workload(snapshot_of_world(stack, victim)) == before


@pytest.mark.parametrize("source", ["finding", "button"])
def test_more_instances_at_once_than_may_be_without_a_person_are_questions_every_one(stack: LocalStack, inbox: Inbox, source: str) -> None:
    victims = [bare_instance(stack) for _ in range(3)]
    before = [workload(snapshot_of_world(stack, victim)) for victim in victims]
    event = attack_sequence(victims) if source == "finding" else custom_action(*([victim.instance] for victim in victims))
    with stack.reconfigured("intake", RESPONSE_MODE="Contain", INSTANCES_PER_EXECUTION="2"):
        arn = start(stack, event)
        asked = [asked_about(inbox, arn, victim) for victim in victims]
    assert all("3 instances at once, and only 2 may be contained without approval" in one["Reason"] for one in asked)
    assert [workload(snapshot_of_world(stack, victim)) for victim in victims] == before


def test_when_this_hours_containments_are_used_up_the_next_finding_is_a_question(stack: LocalStack, inbox: Inbox) -> None:
    """The first finding's instance is gone already, which takes no time and counts all the same."""
    if time.time() % 3600 > 3580:
        time.sleep(21)  # the count begins anew with each hour
    hour = {"Instance": {"S": "automatic"}, "Record": {"S": time.strftime("%Y-%m-%dT%H", time.gmtime())}}
    stack.client("dynamodb").delete_item(TableName=stack.outputs["CaseTableName"], Key=hour)
    victim = bare_instance(stack)
    with stack.reconfigured("intake", RESPONSE_MODE="Contain", INSTANCES_PER_HOUR="1"):
        within = respond(stack, guardduty_finding(INSTANCE))
        asked = asked_about(inbox, start(stack, finding(victim)), victim)
    assert "there is no instance" in within.cause and "ApprovalRequested" not in told(inbox, within.arn)
    assert "the hourly limit on automatic containments (1) has been reached" in asked["Reason"]
    assert not isolated(stack, victim)


@pytest.mark.parametrize("source", ["by hand", "a finding", "the button"])
def test_cordons_own_instance_is_never_contained(stack: LocalStack, source: str) -> None:
    own = bare_instance(stack)
    lay_down(stack, own, "Cordon", "the responders' jump host")
    before, now = snapshot_of_world(stack, own), time.time()
    with stack.reconfigured("intake", RESPONSE_MODE="Contain"):
        execution = {
            "by hand": lambda: contain(stack, own.instance),
            "a finding": lambda: respond(stack, finding(own)),
            "the button": lambda: respond(stack, custom_action([own.instance])),
        }[source]()
    assert (execution.status, execution.error) == ("FAILED", "NotContained")
    assert "it is Cordon's own and is never contained: the responders' jump host" in execution.cause
    assert stack.changes(now) == [] and snapshot_of_world(stack, own) == before and case(stack, own) == {}


# --- Security Hub, samples, and what nothing is done about -------------------------------------------------------


def test_the_button_in_security_hub_contains_every_instance_of_its_findings_without_a_question(stack: LocalStack, inbox: Inbox) -> None:
    victims = build_victims(stack, 2)
    one, two = (victim.instance for victim in victims)
    event = custom_action([one], [two, one], [])
    execution = respond(stack, event)
    assert execution.status == "SUCCEEDED", execution.cause
    assert [instance["Verdict"] for instance in execution.output["Instances"]] == ["Contained", "Contained"]
    assert all(isolated(stack, victim) for victim in victims)
    assert "names no EC2 instance" in reasons(execution)
    assert told(inbox, execution.arn) == ["ContainmentStarted", "Contained"]
    ids = [finding["Id"] for finding in event["detail"]["findings"]]
    assert [sorted(case(stack, victim)["Findings"]) for victim in victims] == [sorted(ids[:2]), ids[1:2]]


@pytest.mark.usefixtures("contain_mode")
@pytest.mark.parametrize(("exists", "verdict"), [(False, "NothingDone"), (True, "Planned")])
def test_a_sample_finding_is_a_dry_run_that_succeeds(stack: LocalStack, inbox: Inbox, exists: bool, verdict: str) -> None:
    victim = bare_instance(stack)
    before, now = snapshot_of_world(stack, victim), time.time()
    service = {"archived": False, "additionalInfo": {"value": '{"sample":true}', "type": "default"}}
    execution = respond(stack, guardduty_finding(victim.instance if exists else "i-99999999", service=service))
    assert execution.status == "SUCCEEDED", execution.cause
    assert execution.output["Verdict"] == verdict
    assert stack.changes(now) == [] and snapshot_of_world(stack, victim) == before and case(stack, victim) == {}
    messages = inbox.messages(execution.arn)
    assert messages and all(message.record["Trigger"]["Findings"][0]["Sample"] for message in messages)
    assert "ApprovalRequested" not in told(inbox, execution.arn)


@pytest.mark.usefixtures("contain_mode")
def test_what_is_archived_or_below_the_minimum_severity_is_left_alone_and_the_execution_says_why(stack: LocalStack, inbox: Inbox) -> None:
    victim = bare_instance(stack)
    before, now = snapshot_of_world(stack, victim), time.time()
    archived = finding(victim)
    archived["detail"]["service"]["archived"] = True
    low = respond(stack, finding(victim, severity=6.9))
    assert_nothing_done(low, "severity 6.9 is below MinimumSeverity, 7")
    assert_nothing_done(respond(stack, archived), "it is archived")
    assert told(inbox, low.arn) == []
    assert stack.changes(now) == [] and snapshot_of_world(stack, victim) == before and case(stack, victim) == {}


@pytest.mark.usefixtures("contain_mode")
def test_a_recorded_finding_on_an_access_key_given_by_hand_says_that_it_names_no_instance(stack: LocalStack) -> None:
    event = recorded("gd_c7n_iam-duty-event")
    event["detail"] |= {"severity": 8}
    assert_nothing_done(stack.run(event), "it is about AccessKey and names no EC2 instance")


@pytest.mark.usefixtures("contain_mode")
def test_an_instance_in_an_account_that_is_not_cordons_is_named_as_not_contained(stack: LocalStack) -> None:
    victim, now = bare_instance(stack), time.time()
    execution = respond(stack, finding(victim, accountId="999999999999"))
    assert (execution.status, execution.error) == ("FAILED", "NotContained")
    assert victim.instance in execution.cause and "999999999999" in execution.cause
    assert stack.changes(now) == []


def test_in_notify_only_mode_a_finding_is_told_and_nothing_is_done(stack: LocalStack, inbox: Inbox) -> None:
    victim = bare_instance(stack)
    before, now = snapshot_of_world(stack, victim), time.time()
    with stack.reconfigured("intake", RESPONSE_MODE="NotifyOnly"):
        execution = respond(stack, finding(victim))
    assert_nothing_done(execution, "the response mode is NotifyOnly")
    assert stack.changes(now) == [] and snapshot_of_world(stack, victim) == before and case(stack, victim) == {}
    (message,) = inbox.messages(execution.arn)
    assert message.kind == "NothingDone" and message.record["LeftOut"][0]["InstanceId"] == victim.instance


# --- Rules -------------------------------------------------------------------------------------------------------


GUARDDUTY, SECURITY_HUB = f"{MACHINE}-guardduty-finding", f"{MACHINE}-security-hub-action"
FINDING, SEQUENCE = guardduty_finding(INSTANCE), findings.attack_sequence((ACCOUNT, REGION, INSTANCE))
BUTTON = custom_action([INSTANCE])


def changed(event: Event, **detail: Any) -> Event:
    """The event with other fields in its detail, or without those that are None."""
    return {**event, "detail": {name: value for name, value in {**event["detail"], **detail}.items() if value is not None}}


EVENTS: dict[str, tuple[Event, str | None]] = {
    "recorded: C&C activity of severity 5, a sample": (recorded("gd_c7n_ec2-duty-event"), GUARDDUTY),
    "recorded: C&C activity of severity 8.7, a sample": (recorded("gd_olu_network-eventbridge"), GUARDDUTY),
    "recorded: an access key": (recorded("gd_c7n_iam-duty-event"), None),
    "recorded: brute force of severity 2": (recorded("gd_seed2_Test-GuardDutyFindings"), None),
    "recorded: another button": (recorded("sh_awssolution_customaction_eks_payload"), None),
    "the example": (FINDING, GUARDDUTY),
    "severity 4": (changed(FINDING, severity=4), GUARDDUTY),
    "severity 10": (changed(FINDING, severity=10), GUARDDUTY),
    "severity 3.9": (changed(FINDING, severity=3.9), None),
    "no severity": (changed(FINDING, severity=None), None),
    "no instance": (changed(FINDING, resource={"resourceType": "S3Bucket"}), None),
    "an attack sequence": (SEQUENCE, GUARDDUTY),
    "an attack sequence of severity 3.9": (changed(SEQUENCE, severity=3.9), None),
    "a finding of another source": ({**FINDING, "source": "com.intruder"}, None),
    "another event of GuardDuty": ({**FINDING, "detail-type": "GuardDuty Malware Protection Object Scan Result"}, None),
    "the button": (BUTTON, SECURITY_HUB),
    "another button": (custom_action([INSTANCE], action="Quarantine"), None),
    "a button whose name ends so": (custom_action([INSTANCE], action="NotCordonContain"), None),
    "the button of another source": ({**BUTTON, "source": "com.intruder"}, None),
    "findings that Security Hub passes on": ({**BUTTON, "detail-type": "Security Hub Findings - Imported"}, None),
}


@pytest.mark.parametrize(("event", "rule"), EVENTS.values(), ids=EVENTS)
def test_an_event_matches_the_rule_that_is_meant_for_it_and_no_other(stack: LocalStack, event: Event, rule: str | None) -> None:
    envelope = {"id": "1", "account": ACCOUNT, "time": "2026-11-21T00:00:00Z", "region": REGION, "resources": []}
    events = stack.client("events")
    patterns = {name: events.describe_rule(Name=name)["EventPattern"] for name in (GUARDDUTY, SECURITY_HUB)}
    whole = json.dumps({**envelope, **event})
    matching = [name for name, pattern in patterns.items() if events.test_event_pattern(EventPattern=pattern, Event=whole)["Result"]]
    assert matching == [rule] * (rule is not None)


def test_on_the_bus_only_what_a_rule_is_meant_for_starts_an_execution(stack: LocalStack) -> None:
    known = stack.executions()
    for event in (event for event, rule in EVENTS.values() if rule is None):
        stack.put_event(event)
    stack.wait(start(stack, guardduty_finding("i-99999999", severity=4)))
    assert len(stack.executions()) == len(known) + 1


def test_a_finding_that_can_start_nothing_lies_in_the_dead_letter_queue(stack: LocalStack) -> None:
    events, sqs, queue = stack.client("events"), stack.client("sqs"), stack.outputs["DeadLetterQueueUrl"]
    deployed = events.list_targets_by_rule(Rule=GUARDDUTY)["Targets"]
    gone = [{**target, "Arn": f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:gone"} for target in deployed]
    events.put_targets(Rule=GUARDDUTY, Targets=gone)
    try:
        id_ = stack.put_event(FINDING)
    finally:
        events.put_targets(Rule=GUARDDUTY, Targets=deployed)
    (letter,) = sqs.receive_message(QueueUrl=queue, MessageAttributeNames=["All"])["Messages"]
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=letter["ReceiptHandle"])
    assert json.loads(letter["Body"])["id"] == id_ and json.loads(letter["Body"])["detail"] == FINDING["detail"]
    assert letter["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "NO_RESOURCE"

"""The command line on the local stack: what a responder types, reads and scripts with."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import time

import pytest

from support.cases import CORDON, cordon, cordon_environment
from support.stack import ACCOUNT, LocalStack
from support.victim import Victim, bare_instance, build_victims, differences, snapshot_of_world

NO_INSTANCE = "i-0123456789abcdef0"
pytestmark = pytest.mark.deployed
COMMANDS = ("contain", "watch", "release", "status", "verify", "completion")


@pytest.fixture(scope="module")
def contained(stack: LocalStack) -> tuple[Victim, subprocess.CompletedProcess[str]]:
    """A victim that was contained from a terminal, and what the terminal showed."""
    (victim,) = build_victims(stack)
    return victim, cordon(stack, "contain", victim.instance, "--ticket", "INC-7", "--owner", "responders")


def execution_in(text: str) -> str:
    """The ARN of the execution that an output begins with."""
    return re.findall(r"arn:aws:states:[a-z0-9-]+:\d+:execution:\S+", text)[0]


def test_containing_shows_each_step_of_the_instance_as_it_happens_then_the_table_and_ends_with_0(stack, contained):
    victim, ended = contained
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    entered = rf"  +\d+\.\d\d s  {victim.instance}  > Isolate network"
    left = rf"  +\d+\.\d\d s  {victim.instance}  < Isolate network +\d+\.\d\d s  Done"
    assert any(re.fullmatch(entered, line) for line in lines), ended.stdout
    assert any(re.fullmatch(left, line) for line in lines), ended.stdout
    assert any(re.fullmatch(r"  +\d+\.\d\d s {23}< Report +\d+\.\d\d s  Contained", line) for line in lines), ended.stdout
    header = next(line for line in lines if line.lstrip().startswith("STEP "))
    assert header.split() == ["STEP", "STATUS", "RESOURCE", "ATTRIBUTE", "BEFORE", "AFTER"]
    for interface in victim.interfaces:
        assert any(interface in line and "Groups" in line for line in lines[lines.index(header):]), ended.stdout
    assert lines[-1].startswith("1 of 1 instances Contained, execution SUCCEEDED in ")
    assert "\x1b" not in ended.stdout, "colours are for terminals"


def test_the_options_of_the_command_line_reach_the_instance(stack, contained):
    victim, _ = contained
    (reservation,) = stack.client("ec2").describe_instances(InstanceIds=[victim.instance])["Reservations"]
    tags = {tag["Key"]: tag["Value"] for tag in reservation["Instances"][0]["Tags"]}
    assert (tags["IncidentTicket"], tags["Owner"]) == ("INC-7", "responders")


def test_an_ended_execution_is_shown_as_it_was_when_it_was_followed(stack, contained):
    victim, ended = contained
    arn = execution_in(ended.stdout)
    watched = cordon(stack, "watch", arn)
    assert watched.returncode == 0, watched.stderr
    assert watched.stdout == ended.stdout


def test_as_json_there_is_one_document_with_the_report_as_it_is_and_the_progress_is_elsewhere(stack, contained):
    victim, ended = contained
    arn = execution_in(ended.stdout)
    watched = cordon(stack, "watch", arn, "--output", "json")
    document = json.loads(watched.stdout)
    described = stack.client("stepfunctions").describe_execution(executionArn=arn)
    assert document["ExecutionArn"] == arn
    assert document["Status"] == "SUCCEEDED"
    assert document["Output"] == json.loads(described["output"])
    assert "> Isolate network" in watched.stderr


def test_status_tells_a_contained_instance_from_one_without_a_case_in_words_and_in_json(stack, contained):
    victim, ended = contained
    arn = execution_in(ended.stdout)
    status = cordon(stack, "status", victim.instance)
    assert status.returncode == 0, status.stderr
    for said in (f"{victim.instance} in {stack.region} of account {ACCOUNT}", "Contained", arn, "SUCCEEDED at ", "Still open  nothing"):
        assert said in status.stdout
    both = cordon(stack, "status", victim.instance, NO_INSTANCE, "--output", "json")
    assert both.returncode == 1
    known, unknown = json.loads(both.stdout)["Instances"]
    assert (known["Case"]["Verdict"], known["Case"]["ExecutionArn"], known["Open"]) == ("Contained", arn, [])
    assert unknown["Case"] is None
    assert "none: Cordon has not contained it" in cordon(stack, "status", NO_INSTANCE).stdout


def test_a_guardrail_is_told_with_its_reason_and_what_hides_in_it_is_shown(stack):
    key = {"Instance": {"S": f"{ACCOUNT}/{stack.region}/i-0123abcd"}, "Record": {"S": "guardrail"}}
    item = {**key, "Rule": {"S": "Protected"}, "Reason": {"S": "pay\x1b[2J\u202ements"}}
    stack.client("dynamodb").put_item(TableName=stack.outputs["CaseTableName"], Item=item)
    status = cordon(stack, "status", "i-0123abcd")
    assert r"Guardrail   Protected: pay\u{1b}[2J\u{202e}ments" in status.stdout


def test_a_dry_run_prints_the_plan_ends_with_0_and_changes_nothing(stack):
    (victim,) = build_victims(stack)
    before = snapshot_of_world(stack, victim)
    planned = cordon(stack, "contain", victim.instance, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "1 of 1 instances Planned, execution SUCCEEDED" in planned.stdout
    assert not differences(before, snapshot_of_world(stack, victim))


def test_an_instance_that_does_not_exist_ends_with_1_and_a_table_that_says_why(stack):
    ended = cordon(stack, "contain", NO_INSTANCE)
    assert ended.returncode == 1, ended.stderr
    assert re.search(r"describe-instance +Failed +NotFound: ", ended.stdout), ended.stdout
    assert "1 of 1 instances NotContained, execution FAILED" in ended.stdout


def test_what_the_command_line_refuses_starts_nothing_and_ends_with_2(stack):
    known = stack.executions()
    for arguments, said in (
        (("contain", "web-1"), 'INSTANCE: "web-1" is not an instance id'),
        (("contain", NO_INSTANCE, "--account", "1234"), '--account: "1234" is not an account'),
        (("contain", NO_INSTANCE, "--instance-region", "tokyo"), '--instance-region: "tokyo" is not a Region\'s name'),
        (("contain", NO_INSTANCE, "--capture-memory"), "--capture-volatile"),
        (("contain",), "INSTANCE"),
        (("watch", "yesterday"), 'EXECUTION-ARN: "yesterday" is not the ARN of an execution'),
        (("release", NO_INSTANCE), "there is no terminal to confirm the release"),
    ):
        refused = cordon(stack, *arguments)
        assert refused.returncode == 2, (arguments, refused.stderr)
        assert said in refused.stderr, (arguments, refused.stderr)
        assert refused.stdout == ""
    assert stack.executions() == known


def test_what_the_workflow_refuses_ends_with_2_and_its_sentence(stack):
    refused = cordon(stack, "contain", NO_INSTANCE, "--instance-region", "eu-nowhere-1")
    assert refused.returncode == 2, refused.stderr
    assert 'InvalidInput: Region: "eu-nowhere-1" is not accepted' in refused.stdout
    assert "execution FAILED" in refused.stdout


def test_a_state_machine_that_does_not_exist_is_named_with_where_to_look_and_ends_with_3(stack):
    for command in (("contain", NO_INSTANCE), ("status", NO_INSTANCE), ("watch", "last"), ("status",)):
        missing = cordon(stack, *command, machine="cordon-contian")
        assert missing.returncode == 3, missing.stderr
        where = f"is Cordon deployed as cordon-contian in {stack.region} of account {ACCOUNT}?"
        assert where in missing.stderr and "--state-machine" in missing.stderr, missing.stderr
        assert re.search(r"states:\w+ on arn:aws:states:.*StateMachineDoesNotExist", missing.stderr), missing.stderr


def test_without_credentials_or_a_region_the_first_thing_said_is_what_is_missing(stack):
    environment = cordon_environment(stack)
    without = {name: value for name, value in environment.items() if name not in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    nobody = cordon(stack, "watch", "last", environment={**without, "AWS_EC2_METADATA_DISABLED": "true"})
    assert nobody.returncode == 3
    assert nobody.stderr.startswith("cordon: there are no AWS credentials: "), nobody.stderr
    nowhere = {name: value for name, value in environment.items() if "REGION" not in name}
    lost = cordon(stack, "status", environment={**nowhere, "AWS_EC2_METADATA_DISABLED": "true"})
    assert lost.returncode == 2
    assert lost.stderr.startswith("cordon: no Region is given; accepted: "), lost.stderr


def test_a_profile_says_account_and_region_as_it_does_for_the_aws_cli(stack, tmp_path):
    config = tmp_path / "config"
    config.write_text(f"[profile responder]\nregion = {stack.region}\naws_access_key_id = {ACCOUNT}\naws_secret_access_key = test\n")
    environment = cordon_environment(stack)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
        environment.pop(name)
    listed = cordon(stack, "status", "--profile", "responder", environment={**environment, "AWS_CONFIG_FILE": str(config)})
    assert listed.returncode == 0, listed.stderr


def test_without_waiting_the_arn_is_all_that_is_printed_and_last_follows_it(stack):
    instance = bare_instance(stack).instance
    started = cordon(stack, "contain", instance, "--no-wait", "--output", "json", "--dry-run")
    assert started.returncode == 0, started.stderr
    arn = json.loads(started.stdout)["ExecutionArn"]
    followed = cordon(stack, "watch", "last")
    assert (followed.returncode, execution_in(followed.stdout)) == (0, arn), followed.stderr


def test_a_fleet_comes_from_standard_input(stack):
    instances = [bare_instance(stack).instance for _ in range(2)]
    planned = cordon(stack, "contain", "-", "--dry-run", "--output", "json", stdin="\n".join(instances))
    assert planned.returncode == 0, planned.stderr
    assert [one["InstanceId"] for one in json.loads(planned.stdout)["Output"]["Instances"]] == instances


def test_a_release_gives_back_what_was_taken_and_status_says_so(stack):
    (victim,) = build_victims(stack)
    before = snapshot_of_world(stack, victim)
    assert cordon(stack, "contain", victim.instance).returncode == 0
    planned = cordon(stack, "release", victim.instance, "--dry-run")
    assert planned.returncode == 0 and "1 of 1 instances Planned" in planned.stdout, planned.stdout
    released = cordon(stack, "release", victim.instance, "--yes")
    assert released.returncode == 0, released.stdout + released.stderr
    assert "-release:" in execution_in(released.stdout)
    assert f"{victim.instance}  > Restore network" in released.stdout
    assert "1 of 1 instances Released, execution SUCCEEDED" in released.stdout
    assert not [what for what, *_ in differences(before, snapshot_of_world(stack, victim)) if what.startswith("Groups ")]
    status = cordon(stack, "status", victim.instance)
    assert status.returncode == 0, status.stdout
    assert re.search(r"Case +\S+, Released at 20", status.stdout), status.stdout
    assert execution_in(cordon(stack, "watch", "last").stdout) == execution_in(released.stdout)
    again = cordon(stack, "release", victim.instance, "--yes")
    assert again.returncode == 0 and "NothingToRelease" in again.stdout, again.stdout


def test_a_release_at_a_terminal_asks_and_does_nothing_without_a_yes(stack):
    known = stack.executions(stack.outputs["ReleaseStateMachineArn"])
    master, terminal = pty.openpty()
    command = [CORDON, "release", NO_INSTANCE]
    with subprocess.Popen(command, stdin=terminal, stderr=subprocess.PIPE, text=True, env=cordon_environment(stack)) as asked:
        os.write(master, b"no\n")
        _, said = asked.communicate(timeout=30)
    os.close(master)
    os.close(terminal)
    assert asked.returncode == 2
    assert f"Release {NO_INSTANCE} in {stack.region}?" in said and "not released: the answer was not yes" in said
    assert stack.executions(stack.outputs["ReleaseStateMachineArn"]) == known


def test_ctrl_c_stops_following_and_not_the_execution_and_says_how_to_go_on(stack):
    instance = bare_instance(stack).instance
    with subprocess.Popen([CORDON, "contain", instance], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=cordon_environment(stack)) as following:  # fmt: skip
        arn = execution_in(following.stdout.readline())
        time.sleep(0.5)  # the first line is printed just before Ctrl-C is taken
        following.send_signal(signal.SIGINT)
        stdout, stderr = following.communicate(timeout=20)
    assert following.returncode == 130, stderr
    assert "the execution goes on" in stderr
    assert f"cordon watch {arn}\n" in stderr and f"aws stepfunctions stop-execution --execution-arn {arn}" in stderr
    assert "instances Contained" not in stdout
    assert stack.wait(arn).instance(instance)["Verdict"] == "Contained"


def test_status_without_instances_lists_what_runs_and_how_the_last_one_ended(stack, contained):
    listed = cordon(stack, "status", "--output", "json")
    assert listed.returncode == 0, listed.stderr
    ended = [one for one in json.loads(listed.stdout)["Executions"] if one["Status"] != "RUNNING"]
    newest = stack.executions()[0]
    assert newest in [one["ExecutionArn"] for one in ended]
    table = cordon(stack, "status")
    assert table.stdout.split()[:5] == ["STATUS", "STARTED", "ENDED", "INSTANCES", "EXECUTION"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "elvish", "powershell"])
def test_the_completion_script_of_each_shell_knows_every_command(shell, tmp_path):
    completion = subprocess.run([CORDON, "completion", shell], capture_output=True, text=True, check=True)
    for command in COMMANDS:
        assert command in completion.stdout
    assert "--auto-scaling" in completion.stdout or "auto-scaling" in completion.stdout
    if shell == "bash" and shutil.which("bash"):
        script = tmp_path / "cordon.bash"
        script.write_text(completion.stdout, encoding="utf-8")
        complete = f"source {script}; COMP_WORDS=(cordon con); COMP_CWORD=1; _cordon cordon con cordon; echo ${{COMPREPLY[@]}}"
        completed = subprocess.run(["bash", "-c", complete], capture_output=True, text=True, check=True)
        assert completed.stdout.split() == ["contain"]


def test_each_command_says_its_exit_codes():
    for command in ("contain", "watch", "release", "status", "verify"):
        said = subprocess.run([CORDON, command, "--help"], capture_output=True, text=True, check=True).stdout
        assert "Exit code: 0 " in " ".join(said.split()), said

//! How to release: the command, and what it restores, for whoever has to do part of it by hand; or how it was released.

use custody::{Change, Manifest, Release};
use maud::{Markup, html};
use serde_json::Value;
use verdict::{Release as OnRelease, StepName};

use crate::quote::{cell, code, is_harmless, more, none, or_none, value};
use crate::time::shown;
use crate::words::{Words, words};

/// More changes than this are in the manifest only.
const ROWS: usize = 200;

/// What is to be restored, in the order in which it is to be done.
pub(crate) fn changes(manifest: &Manifest) -> impl Iterator<Item = (&str, &Change)> {
    let steps = manifest.steps.iter().rev().filter(|step| !stays_as_it_is(&step.step));
    let changes = steps.flat_map(|step| step.changes.iter().rev().map(|change| (step.step.as_str(), change)));
    changes.filter(|(_, change)| change.before != change.after && change.attribute != "Rules")
}

/// Whether a step's changes are evidence, or final. Those of a step that this report does not know are shown.
fn stays_as_it_is(step: &str) -> bool {
    StepName::from_name(step).is_some_and(|step| match step.release() {
        OnRelease::Evidence | OnRelease::Final => true,
        OnRelease::Undone(_) | OnRelease::OnRequest(_) | OnRelease::Nothing => false,
    })
}

/// How the case was released, above the steps that did it.
pub(crate) fn released(release: &Release, at: &str) -> Markup {
    html! {
        p {
            @match release.case_closed {
                true => (words(
                    "The case is closed. A later containment of the instance opens a new one.",
                    "このケースは終結しています。以後の封じ込めは新しいケースになります。",
                )),
                false => (words(
                    "The case is still open: release what is left again.",
                    "このケースはまだ開いています。残りを再度解除してください。",
                )),
            }
            " " (words("Read back before", "確認日時：")) " " (shown(at)) ", " (words("by", "実行：")) " "
            (or_none(Some(&release.execution)))
        }
    }
}

/// The command, the table, and what both leave alone.
pub(crate) fn release(manifest: &Manifest) -> Markup {
    let all = changes(manifest).count();
    if manifest.release.as_ref().is_some_and(|release| release.case_closed) && manifest.open.is_empty() {
        return stays();
    }
    html! {
        p {
            (words(
                "Release it only when the incident is over or was a false alarm. The release workflow restores exactly what this case \
                 has changed, to what it was before, and nothing else; it reads everything back and closes the case. The Auto \
                 Scaling group is left out unless you ask for it, because a replacement is running by now. With \"DryRun\": true \
                 it only shows what it would do.",
                "インシデントが収束したか誤検知だった場合に限り解除してください。解除ワークフローは、このケースで変更したものだけを元の値に戻し、\
                 読み直して確認し、ケースを閉じます。代わりのインスタンスが動いているため、Auto Scaling には指定した場合だけ戻します。\
                 \"DryRun\": true を加えると、計画だけを示します。",
            ))
        }
        @match start(manifest) {
            Some(command) => pre { code translate="no" { (command) } },
            None => p { (words(
                "The command is left out because a value that it needs is missing or cannot be pasted safely: the stack's \
                 output StartRelease has it.",
                "必要な値がないか安全に貼り付けられないため、コマンドは省略しました。スタックの出力 StartRelease を使ってください。",
            )) },
        }
        p {
            (words(
                "What there is to restore, for reading and for finishing by hand; the release names what it can no longer restore. \
                 Check the current value first, because somebody may have changed it since.",
                "元に戻す内容の一覧です。確認用、および手動で仕上げる場合に使います（戻せなくなったものは解除の結果に示されます）。\
                 その間に変更されている可能性があるため、現在の値を先に確認してください。",
            ))
        }
        @if all == 0 {
            p { (words("Nothing has to be restored.", "元に戻す必要のある変更はありません。")) }
        } @else {
            table.cards.release role="table" {
                thead role="rowgroup" {
                    tr role="row" {
                        th role="columnheader" scope="col" { (words("Order", "順序")) }
                        th role="columnheader" scope="col" { (words("Resource", "リソース")) }
                        th role="columnheader" scope="col" { (words("Restore to", "戻す値")) }
                        th role="columnheader" scope="col" { (words("How", "方法")) }
                    }
                }
                tbody role="rowgroup" {
                    @for (number, (step, change)) in changes(manifest).take(ROWS).enumerate() {
                        tr role="row" {
                            (cell(words("Order", "順序"), html! { (number + 1) }))
                            (cell(words("Resource", "リソース"), html! { (code(&change.resource)) " " span.soft { (code(&change.attribute)) } }))
                            (cell(words("Restore to", "戻す値"), html! {
                                @if change.before.is_null() { span.own { (words("remove it: there was none", "削除（元は存在しない）")) } }
                                @else { (value(&change.before)) }
                            }))
                            (cell(words("How", "方法"), how(step, change, &manifest.region)))
                        }
                    }
                }
            }
            ul.plain { (more(all, ROWS)) }
        }
        (stays())
    }
}

fn stays() -> Markup {
    html! {
        p {
            (words(
                "What stays: the evidence in the bucket, the snapshots and their copies, the instance's first state in the case table, and \
                 Cordon's security groups, which other cases may use.",
                "残るもの：バケット内の証拠、スナップショットとそのコピー、ケーステーブルに記録された元の状態、ほかのケースでも使われる Cordon の\
                 セキュリティグループ。",
            ))
        }
    }
}

/// The command that starts the release state machine, which has the containment's name with a suffix; only if AWS made
/// every part of it.
fn start(manifest: &Manifest) -> Option<String> {
    let Manifest { instance_id, region, account_id, execution, .. } = manifest;
    let [arn, partition, states, home, account, kind, machine, _] = *execution.split(':').collect::<Vec<_>>() else {
        return None;
    };
    let is_id = instance_id.strip_prefix("i-").is_some_and(is_hexadecimal);
    let is_account = |text: &str| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
    let is_name = |text: &str| {
        (1..=80).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let good = (arn, states, kind) == ("arn", "states", "execution")
        && [partition, home, machine, region].into_iter().all(is_name)
        && is_account(account)
        && is_account(account_id)
        && is_id;
    let machine = machine.strip_suffix("-release").unwrap_or(machine);
    good.then(|| {
        let state_machine = format!("arn:{partition}:states:{home}:{account}:stateMachine:{machine}-release");
        let input =
            format!("{{\"InstanceIds\":[\"{instance_id}\"],\"Region\":\"{region}\",\"AccountId\":\"{account_id}\"}}");
        format!(
            "aws stepfunctions start-execution --region {home} --state-machine-arn {state_machine} --input '{input}'"
        )
    })
}

fn how(step: &str, change: &Change, region: &str) -> Markup {
    html! {
        (in_words(step, change))
        @if let Some(command) = command(step, change, region) { pre { code translate="no" { (command) } } }
    }
}

fn in_words(step: &str, change: &Change) -> Words {
    let back = words("Set it back to the value before.", "元の値に戻します。");
    let Some(step) = StepName::from_name(step) else { return back };
    match step {
        StepName::IsolateNetwork => words(
            "Put these security groups back on the network interface.",
            "ネットワークインターフェイスに、これらのセキュリティグループを付け直します。",
        ),
        StepName::DetachAutoscaling => words(
            "Attach the instance to the Auto Scaling group, last of all. If it was in Standby or protected from scale-in, set that again.",
            "最後に Auto Scaling グループへアタッチします。スタンバイやスケールイン保護だった場合は再設定します。",
        ),
        StepName::DeregisterTargets => words(
            "Register the target again, with the same id and port.",
            "同じ ID とポートでターゲットを登録し直します。",
        ),
        StepName::ProtectInstance | StepName::PreserveVolumes => {
            words("Set the instance's attribute back to this value.", "インスタンスの属性をこの値に戻します。")
        }
        StepName::TagResources => words(
            "Set these tags back, and delete Cordon's tags that were not there before. Tags may stay as a record.",
            "これらのタグに戻し、元になかった Cordon のタグを削除します。記録として残してもかまいません。",
        ),
        StepName::RevokeCredentials if change.before.is_null() => words(
            "Delete this inline policy from the role, and no other.",
            "ロールからこのインラインポリシーだけを削除します。",
        ),
        StepName::RevokeCredentials => {
            words("Put the policy's earlier document back on the role.", "ロールのポリシーを以前の内容に戻します。")
        }
        StepName::DetachProfile => words(
            "Attach the instance profile again; running programs may take minutes to get credentials.",
            "インスタンスプロファイルを再度関連付けます。認証情報の取得に数分かかることがあります。",
        ),
        StepName::CreateFlowLogs => words(
            "Delete the flow log when nobody needs it any more; what it delivered stays.",
            "不要になったらフローログを削除します。配信済みの記録は残ります。",
        ),
        // What these change stays, or they change nothing.
        StepName::CreateSnapshots
        | StepName::EncryptSnapshots
        | StepName::ShareSnapshots
        | StepName::CopySnapshots
        | StepName::LockSnapshots
        | StepName::DeleteOriginals
        | StepName::TerminateSessions
        | StepName::CaptureVolatile
        | StepName::CollectFacts
        | StepName::DescribeInstance
        | StepName::DescribeNetwork
        | StepName::HashSnapshots
        | StepName::RequestApproval
        | StepName::VerifyContainment
        | StepName::VerifyRelease
        | StepName::SealEvidence
        | StepName::CloseCase => back,
    }
}

/// A command, if every part of it is an id that AWS made: nobody should paste a stranger's words into a shell.
fn command(step: &str, change: &Change, region: &str) -> Option<String> {
    let id = |text: &str, kind: &str| is_harmless(text) && text.strip_prefix(kind).is_some_and(is_hexadecimal);
    let list = change.before.as_array().filter(|list| !list.is_empty() && list.len() <= 16)?;
    let groups: Vec<&str> = list.iter().filter_map(Value::as_str).filter(|group| id(group, "sg-")).collect();
    (step == StepName::IsolateNetwork.name()
        && change.attribute == "Groups"
        && id(&change.resource, "eni-")
        && groups.len() == list.len()
        && is_harmless(region))
    .then(|| {
        let (interface, groups) = (&change.resource, groups.join(" "));
        format!("aws ec2 modify-network-interface-attribute --region {region} --network-interface-id {interface} --groups {groups}")
    })
}

fn is_hexadecimal(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || matches!(c, 'a'..='f'))
}

/// One change, as it happened.
pub(crate) fn change_row(change: &Change) -> Markup {
    let side = |value: &Value| if value.is_null() { none() } else { crate::quote::value(value) };
    html! {
        tr role="row" {
            (cell(words("Resource", "リソース"), code(&change.resource)))
            (cell(words("Attribute", "属性"), code(&change.attribute)))
            (cell(words("Before", "変更前"), side(&change.before)))
            (cell(words("After", "変更後"), side(&change.after)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody::Step;
    use serde_json::json;

    fn change(resource: &str, attribute: &str, before: Value) -> Change {
        Change { resource: resource.into(), attribute: attribute.into(), before, after: json!("changed") }
    }

    fn step(name: &str, changes: Vec<Change>) -> Step {
        Step { step: name.into(), changes, ..Step::default() }
    }

    #[test]
    fn changes_are_undone_from_last_to_first_and_evidence_stays() {
        let manifest = Manifest {
            steps: vec![
                step("detach-autoscaling", vec![change("web", "Membership", json!("InService"))]),
                step(
                    "isolate-network",
                    vec![change("eni-1", "Groups", json!([])), change("vpc-1 cordon-isolation", "Rules", json!([]))],
                ),
                step("create-snapshots", vec![change("vol-1", "Snapshot", Value::Null)]),
                step("detach-profile", vec![change("iip-1", "InstanceProfile", json!({}))]),
            ],
            ..Manifest::default()
        };
        let order: Vec<&str> = changes(&manifest).map(|(_, change)| change.resource.as_str()).collect();
        assert_eq!(order, ["iip-1", "eni-1", "web"], "the group's rules are Cordon's own, and snapshots stay");
    }

    #[test]
    fn a_command_consists_of_ids_only() {
        let groups = |list: Value| command("isolate-network", &change("eni-0a1b", "Groups", list), "eu-west-1");
        assert_eq!(
            groups(json!(["sg-1", "sg-2"])).as_deref(),
            Some(
                "aws ec2 modify-network-interface-attribute --region eu-west-1 --network-interface-id eni-0a1b --groups sg-1 sg-2"
            )
        );
        for hostile in [
            json!(["sg-1; reboot"]),
            json!(["sg-1", 7]),
            json!(["--debug"]),
            json!([]),
            json!("sg-1"),
            json!(["sg-$(id)"]),
        ] {
            assert_eq!(groups(hostile.clone()), None, "{hostile}");
        }
        let elsewhere = command("isolate-network", &change("eni-1", "Groups", json!(["sg-1"])), "eu-west-1 && reboot");
        assert_eq!(elsewhere, None);
    }

    fn started(execution: &str, instance_id: &str) -> Option<String> {
        let (account_id, region) = ("444455556666".into(), "eu-west-1".into());
        start(&Manifest {
            execution: execution.into(),
            instance_id: instance_id.into(),
            account_id,
            region,
            ..Manifest::default()
        })
    }

    #[test]
    fn the_command_starts_the_release_workflow_of_the_execution_that_sealed_the_case() {
        let command = "aws stepfunctions start-execution --region us-east-1 --state-machine-arn \
                       arn:aws:states:us-east-1:111122223333:stateMachine:cordon-release --input \
                       '{\"InstanceIds\":[\"i-0a1b\"],\"Region\":\"eu-west-1\",\"AccountId\":\"444455556666\"}'";
        for machine in ["cordon", "cordon-release"] {
            let arn = format!("arn:aws:states:us-east-1:111122223333:execution:{machine}:any 'name'");
            assert_eq!(started(&arn, "i-0a1b").as_deref(), Some(command));
        }
    }

    #[test]
    fn a_start_command_consists_of_checked_values_only() {
        let good = "arn:aws:states:us-east-1:111122223333:execution:cordon:run";
        assert!(started(good, "i-0a1b").is_some());
        for hostile in ["i-0a1b'; reboot", "", "i-", "x"] {
            assert_eq!(started(good, hostile), None, "{hostile}");
        }
        for hostile in [
            "",
            "arn",
            "arn:aws:states:a'b:111122223333:execution:c:r",
            "arn:aws:states:e:1:execution:c:r",
            "a:b:c:d:e:f:g:h",
        ] {
            assert_eq!(started(hostile, "i-0a1b"), None, "{hostile}");
        }
    }
}

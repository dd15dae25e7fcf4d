//! The steps in words; a step that this report does not know goes by its own name.

use custody::Step;
use verdict::{Status, StepName, Word};

use crate::words::{Words, words};

/// A step's title, and what a person does if it is not done.
pub(crate) struct About {
    pub title: Words,
    /// What to do by hand while AWS does not show the step as done.
    pub by_hand: Words,
}

/// A step's words, if it is one that this report knows.
pub(crate) fn about(step: &Step) -> Option<About> {
    StepName::from_name(&step.step).map(about_step)
}

pub(crate) fn about_step(step: StepName) -> About {
    let (title, by_hand) = match step {
        StepName::DescribeInstance => (
            words("Record the first state", "元の状態を記録"),
            words(
                "The instance's first state is not recorded completely: note its settings in the EC2 console before anybody changes more.",
                "変更前の状態が完全には記録されていません。これ以上変更される前に、EC2 コンソールで設定を控えてください。",
            ),
        ),
        StepName::DescribeNetwork => (
            words("Record the network", "ネットワーク設定を記録"),
            words(
                "Save the security groups, route tables and network ACLs of the instance's subnets by hand.",
                "インスタンスのサブネットのセキュリティグループ、ルートテーブル、ネットワーク ACL を手動で保存してください。",
            ),
        ),
        StepName::RequestApproval => (
            words("Request approval", "承認を確認"),
            words(
                "Nobody gave a clear answer. Decide, and start the containment by hand if it should happen: a start by hand asks nobody.",
                "明確な回答がありませんでした。封じ込めるかどうかを決め、行う場合は手動で開始してください（手動の開始では承認を求めません）。",
            ),
        ),
        StepName::DetachAutoscaling => (
            words("Leave Auto Scaling", "Auto Scaling から切り離し"),
            words(
                "Take the instance out of its Auto Scaling group, or suspend the group's processes Terminate, HealthCheck and \
                 ReplaceUnhealthy: otherwise the group may terminate the isolated instance, and its evidence with it.",
                "インスタンスを Auto Scaling グループから切り離すか、グループの Terminate、HealthCheck、ReplaceUnhealthy \
                 プロセスを停止してください。そうしないと、隔離したインスタンスが証拠ごと終了されるおそれがあります。",
            ),
        ),
        StepName::IsolateNetwork => (
            words("Isolate network", "ネットワークを隔離"),
            words(
                "Cut the network by hand: in the EC2 console, give every network interface of the instance a security group \
                 without any rule. If that is refused, stop the instance as soon as its memory is captured or given up.",
                "手動でネットワークを遮断してください。EC2 コンソールで、インスタンスのすべてのネットワークインターフェイスを、\
                 ルールが一つもないセキュリティグループに変更します。拒否される場合は、メモリを取得した（または断念した）時点で\
                 インスタンスを停止してください。",
            ),
        ),
        StepName::DeregisterTargets => (
            words("Leave load balancers", "ロードバランサーから登録解除"),
            words(
                "Deregister the instance from its target groups and classic load balancers, so that no user's request reaches it.",
                "利用者のリクエストが届かないよう、ターゲットグループと Classic Load Balancer から登録を解除してください。",
            ),
        ),
        StepName::ProtectInstance => (
            words("Protect from termination", "終了・停止から保護"),
            words(
                "Enable termination and stop protection by hand where AWS offers it, and tell whoever can terminate the \
                 instance not to. A Spot instance supports neither: rely on its snapshots.",
                "可能であれば終了保護と停止保護を手動で有効にし、インスタンスを終了できる担当者に終了しないよう伝えてください。\
                 スポットインスタンスではどちらも使えないため、スナップショットを頼りにします。",
            ),
        ),
        StepName::PreserveVolumes => (
            words("Keep the volumes", "ボリュームを保全"),
            words(
                "Set DeleteOnTermination of the instance's volumes and interfaces to false by hand: otherwise they are deleted with the instance.",
                "ボリュームとネットワークインターフェイスの DeleteOnTermination を手動で false にしてください。\
                 そのままではインスタンスの終了とともに失われます。",
            ),
        ),
        StepName::TagResources => (
            words("Tag the resources", "リソースにタグを付与"),
            words(
                "Tag the instance, its volumes and its snapshots with the case by hand, so that people find them and leave them alone.",
                "担当者が見つけられ、誤って触らないように、インスタンス、ボリューム、スナップショットにケースのタグを手動で付けてください。",
            ),
        ),
        StepName::CreateSnapshots => (
            words("Take snapshots", "スナップショットを作成"),
            words(
                "Take a snapshot of each volume by hand now; the disk keeps changing until then.",
                "各ボリュームのスナップショットを今すぐ手動で作成してください。それまでディスクの内容は変わり続けます。",
            ),
        ),
        StepName::EncryptSnapshots => (
            words("Encrypt the snapshots", "スナップショットを暗号化"),
            words(
                "Keep the originals and copy them under the stack's key once they are complete: run the containment again, or copy by hand.",
                "元のスナップショットを残し、完了後にスタックのキーで暗号化コピーを作成してください（封じ込めの再実行または手動）。",
            ),
        ),
        StepName::ShareSnapshots => (
            words("Share the snapshots", "スナップショットを共有"),
            words(
                "The forensic account cannot read the snapshots yet: check the key's policy and the snapshots' permissions, then run the containment again.",
                "フォレンジック用アカウントはまだスナップショットを読めません。キーポリシーと共有設定を確認し、再実行してください。",
            ),
        ),
        StepName::CopySnapshots => (
            words("Copy to forensic account", "フォレンジック側へコピー"),
            words(
                "The forensic account has no copy of its own yet: do not delete the sources, and run the containment again.",
                "フォレンジック用アカウントにはまだコピーがありません。元のスナップショットを削除せず、再実行してください。",
            ),
        ),
        StepName::LockSnapshots => (
            words("Lock the snapshots", "スナップショットをロック"),
            words(
                "Administrators of the account can still delete the snapshots: lock them by hand, or deny the deletion.",
                "アカウントの管理者がスナップショットを削除できる状態です。手動でロックするか、削除権限を外してください。",
            ),
        ),
        StepName::DeleteOriginals => (
            words("Delete plain originals", "非暗号化の元データを削除"),
            words(
                "Unencrypted originals still exist: they are evidence, and anybody who may read snapshots in the account can read them.",
                "暗号化されていない元のスナップショットが残っています。証拠ですが、アカウント内の閲覧権限で読める点に注意してください。",
            ),
        ),
        StepName::CaptureVolatile => (
            words("Capture volatile data", "揮発性データを取得"),
            words(
                "Processes, connections and memory were not captured completely. While the instance runs they still exist: decide \
                 whether to capture by hand before it is stopped.",
                "プロセス、通信、メモリの取得が完了していません。稼働中であればまだ残っているため、停止する前に手動で取得するか判断してください。",
            ),
        ),
        StepName::TerminateSessions => (
            words("End live sessions", "接続中のセッションを切断"),
            words(
                "Check Systems Manager for Session Manager sessions to the instance, and end those that are not yours.",
                "Systems Manager でこのインスタンスへの Session Manager セッションを確認し、担当者以外のものを切断してください。",
            ),
        ),
        StepName::RevokeCredentials => (
            words("Revoke credentials", "認証情報を無効化"),
            words(
                "The credentials that the instance had may still work elsewhere: add a deny for this instance to its role by hand \
                 (condition ec2:SourceInstanceARN), or for all sessions of the role if you can afford the interruption.",
                "インスタンスの認証情報がまだ外部で使える可能性があります。ロールに、このインスタンスを対象とする拒否ポリシー\
                 （条件 ec2:SourceInstanceARN）を手動で追加してください。影響を許容できるなら全セッションの拒否も選べます。",
            ),
        ),
        StepName::DetachProfile => (
            words("Detach profile", "プロファイルを切り離し"),
            words(
                "Detach the instance profile by hand, so that the host gets no new credentials.",
                "ホストが新しい認証情報を得られないよう、インスタンスプロファイルを手動で切り離してください。",
            ),
        ),
        StepName::CreateFlowLogs => (
            words("Enable flow logs", "フローログを有効化"),
            words(
                "Enable flow logs for the instance's interfaces by hand: without them nobody sees whether a connection goes on.",
                "インスタンスのネットワークインターフェイスでフローログを手動で有効にしてください。ないと通信の継続を確認できません。",
            ),
        ),
        StepName::CollectFacts => (
            words("Collect facts", "調査用の情報を収集"),
            words(
                "Some facts are missing; read what the reason names by hand in the console or in CloudTrail.",
                "一部の情報が不足しています。理由に挙がった項目はコンソールや CloudTrail で手動で確認できます。",
            ),
        ),
        StepName::VerifyContainment => (
            words("Verify containment", "封じ込めを検証"),
            words(
                "Nobody has read back whether the instance is contained: run the containment again, or check its security groups by hand.",
                "封じ込めの結果を確認できていません。再実行するか、セキュリティグループを手動で確認してください。",
            ),
        ),
        StepName::SealEvidence => (
            words("Seal evidence", "証拠を封印"),
            words(
                "The record of the evidence is not complete: seal the case again before anybody relies on it.",
                "証拠の記録が完全ではありません。利用する前にケースを封印し直してください。",
            ),
        ),
        StepName::HashSnapshots => (
            words("List block hashes", "ブロックのハッシュ一覧を作成"),
            words(
                "The list of the snapshots' block hashes is not complete: run the containment again, or compare a copy by its own hash.",
                "スナップショットのブロックのハッシュ一覧が完成していません。再実行するか、コピーのハッシュで照合してください。",
            ),
        ),
        StepName::VerifyRelease => (
            words("Verify release", "解除を検証"),
            words(
                "Nobody has read back whether the instance is released: run the release again.",
                "解除の結果を確認できていません。解除を再実行してください。",
            ),
        ),
        StepName::CloseCase => (
            words("Close the case", "ケースを終結"),
            words(
                "The case is still open: run the release again when nothing is left to restore.",
                "ケースはまだ開いています。元に戻すものがなくなったら、解除を再実行してください。",
            ),
        ),
    };
    About { title, by_hand }
}

/// What a status means to whoever reads that the step is open.
pub(crate) fn open(status: &Word<Status>) -> Words {
    match status.known() {
        Some(Status::InProgress) => words(
            "AWS was still working on it when the case was sealed. Check again, or run the containment again.",
            "封印の時点で AWS の処理が続いていました。あとで確認するか、封じ込めを再実行してください。",
        ),
        Some(Status::Unsupported) => words(
            "AWS does not offer this for the instance. Decide whether it needs another measure.",
            "このインスタンスでは AWS が対応していません。別の対策が必要か判断してください。",
        ),
        Some(Status::Planned) => {
            words("It was only planned. Nothing was changed.", "計画のみで、何も変更していません。")
        }
        Some(Status::Done | Status::NotApplicable | Status::Failed) | None => words(
            "It failed. Running the containment again is safe: only what is missing is done.",
            "失敗しました。封じ込めの再実行は安全です。不足している部分だけが行われます。",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_title_of_its_own_that_fits_the_timeline() {
        let titles: std::collections::BTreeSet<&str> =
            StepName::ALL.iter().map(|step| about_step(*step).title.en).collect();
        assert_eq!(titles.len(), StepName::ALL.len());
        assert!(titles.iter().all(|title| title.chars().count() <= 28), "{titles:?}");
    }
}

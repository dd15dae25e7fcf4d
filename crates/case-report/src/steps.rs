//! The steps that the product has, in words; a step that this report does not know goes by its own name.

use crate::words::{Words, words};

/// A step's title, and what a person does where it is not done.
pub(crate) struct About {
    pub title: Words,
    /// What to do by hand while AWS does not show the step as done.
    pub by_hand: Words,
}

pub(crate) fn about(step: &str) -> Option<About> {
    let (title, by_hand) = match step {
        "describe-instance" => (
            words("Record the first state", "元の状態を記録"),
            words(
                "What the instance was before is not recorded completely: note its settings in the EC2 console before anybody changes more.",
                "変更前の状態が完全には記録されていません。これ以上変更される前に、EC2 コンソールで設定を控えてください。",
            ),
        ),
        "describe-network" => (
            words("Record the network", "ネットワーク設定を記録"),
            words(
                "Save the security groups, route tables and network ACLs of the instance's subnets by hand.",
                "インスタンスのサブネットのセキュリティグループ、ルートテーブル、ネットワーク ACL を手動で保存してください。",
            ),
        ),
        "request-approval" => (
            words("Request approval", "承認を確認"),
            words(
                "Nobody gave a clear answer. Decide, and start the containment by hand if it is to happen: a start by hand asks nobody.",
                "明確な回答がありませんでした。封じ込めるかどうかを決め、行う場合は手動で開始してください（手動の開始では承認を求めません）。",
            ),
        ),
        "detach-autoscaling" => (
            words("Leave Auto Scaling", "Auto Scaling から切り離し"),
            words(
                "Take the instance out of its Auto Scaling group, or suspend the group's processes Terminate, HealthCheck and \
                 ReplaceUnhealthy: otherwise the group may terminate the isolated instance, and its evidence with it.",
                "インスタンスを Auto Scaling グループから切り離すか、グループの Terminate、HealthCheck、ReplaceUnhealthy \
                 プロセスを停止してください。そうしないと、隔離したインスタンスが証拠ごと終了されるおそれがあります。",
            ),
        ),
        "isolate-network" => (
            words("Isolate network", "ネットワークを隔離"),
            words(
                "Cut the network by hand: in the EC2 console, give every network interface of the instance a security group \
                 without any rule. If that is refused, stop the instance as soon as its memory is captured or given up.",
                "手動でネットワークを遮断してください。EC2 コンソールで、インスタンスのすべてのネットワークインターフェイスを、\
                 ルールが一つもないセキュリティグループに変更します。拒否される場合は、メモリを取得した（または断念した）時点で\
                 インスタンスを停止してください。",
            ),
        ),
        "deregister-targets" => (
            words("Leave load balancers", "ロードバランサーから登録解除"),
            words(
                "Deregister the instance from its target groups and classic load balancers, so that no user's request reaches it.",
                "利用者のリクエストが届かないよう、ターゲットグループと Classic Load Balancer から登録を解除してください。",
            ),
        ),
        "protect-instance" => (
            words("Protect from termination", "終了・停止から保護"),
            words(
                "Switch termination and stop protection on by hand where AWS offers it, and tell whoever can terminate the \
                 instance not to. A Spot instance takes neither: count on its snapshots.",
                "可能であれば終了保護と停止保護を手動で有効にし、インスタンスを終了できる担当者に終了しないよう伝えてください。\
                 スポットインスタンスではどちらも使えないため、スナップショットを頼りにします。",
            ),
        ),
        "preserve-volumes" => (
            words("Keep the volumes", "ボリュームを保全"),
            words(
                "Set DeleteOnTermination of the instance's volumes and interfaces to false by hand: otherwise they go with the instance.",
                "ボリュームとネットワークインターフェイスの DeleteOnTermination を手動で false にしてください。\
                 そのままではインスタンスの終了とともに失われます。",
            ),
        ),
        "tag-resources" => (
            words("Tag the resources", "リソースにタグを付与"),
            words(
                "Tag the instance, its volumes and its snapshots with the case by hand, so that people find them and leave them alone.",
                "担当者が見つけられ、誤って触らないように、インスタンス、ボリューム、スナップショットにケースのタグを手動で付けてください。",
            ),
        ),
        "create-snapshots" => (
            words("Take snapshots", "スナップショットを作成"),
            words(
                "Make a snapshot of each volume by hand now; the disk goes on changing until then.",
                "各ボリュームのスナップショットを今すぐ手動で作成してください。それまでディスクの内容は変わり続けます。",
            ),
        ),
        "encrypt-snapshots" => (
            words("Encrypt the snapshots", "スナップショットを暗号化"),
            words(
                "Keep the originals, and copy them under the stack's key once they are complete: run the containment again, or copy by hand.",
                "元のスナップショットを残し、完了後にスタックのキーで暗号化コピーを作成してください（封じ込めの再実行または手動）。",
            ),
        ),
        "share-snapshots" => (
            words("Share the snapshots", "スナップショットを共有"),
            words(
                "The forensic account cannot read the snapshots yet: look at the key's policy and the snapshots' permissions, then run the containment again.",
                "フォレンジック用アカウントはまだスナップショットを読めません。キーポリシーと共有設定を確認し、再実行してください。",
            ),
        ),
        "copy-snapshots" => (
            words("Copy to forensic account", "フォレンジック側へコピー"),
            words(
                "The forensic account has no copy of its own yet: do not delete the sources, and run the containment again.",
                "フォレンジック用アカウントにはまだコピーがありません。元のスナップショットを削除せず、再実行してください。",
            ),
        ),
        "lock-snapshots" => (
            words("Lock the snapshots", "スナップショットをロック"),
            words(
                "Whoever administers the account can still delete the snapshots: lock them by hand, or take the right to delete away.",
                "アカウントの管理者がスナップショットを削除できる状態です。手動でロックするか、削除権限を外してください。",
            ),
        ),
        "delete-originals" => (
            words("Delete plain originals", "非暗号化の元データを削除"),
            words(
                "Unencrypted originals are still there: they are evidence, and readable by whoever may read snapshots in the account.",
                "暗号化されていない元のスナップショットが残っています。証拠ですが、アカウント内の閲覧権限で読める点に注意してください。",
            ),
        ),
        "capture-volatile" => (
            words("Capture volatile data", "揮発性データを取得"),
            words(
                "Processes, connections and memory were not captured completely. While the instance runs they still exist: decide \
                 whether to capture by hand before it is stopped.",
                "プロセス、通信、メモリの取得が完了していません。稼働中であればまだ残っているため、停止する前に手動で取得するか判断してください。",
            ),
        ),
        "terminate-sessions" => (
            words("End live sessions", "接続中のセッションを切断"),
            words(
                "Look in Systems Manager for Session Manager sessions to the instance, and end those that are not yours.",
                "Systems Manager でこのインスタンスへの Session Manager セッションを確認し、担当者以外のものを切断してください。",
            ),
        ),
        "revoke-credentials" => (
            words("Revoke credentials", "認証情報を無効化"),
            words(
                "The credentials that the instance had may still work elsewhere: add a deny for this instance to its role by hand \
                 (condition ec2:SourceInstanceARN), or for all sessions of the role if that can be afforded.",
                "インスタンスの認証情報がまだ外部で使える可能性があります。ロールに、このインスタンスを対象とする拒否ポリシー\
                 （条件 ec2:SourceInstanceARN）を手動で追加してください。影響を許容できるなら全セッションの拒否も選べます。",
            ),
        ),
        "detach-profile" => (
            words("Detach profile", "プロファイルを切り離し"),
            words(
                "Detach the instance profile by hand, so that the host gets no new credentials.",
                "ホストが新しい認証情報を得られないよう、インスタンスプロファイルを手動で切り離してください。",
            ),
        ),
        "create-flow-logs" => (
            words("Switch flow logs on", "フローログを有効化"),
            words(
                "Switch flow logs on for the instance's interfaces by hand: without them nobody sees whether a connection goes on.",
                "インスタンスのネットワークインターフェイスでフローログを手動で有効にしてください。ないと通信の継続を確認できません。",
            ),
        ),
        "collect-facts" => (
            words("Collect facts", "調査用の情報を収集"),
            words(
                "Some facts are missing; what the reason names can be read by hand in the console or in CloudTrail.",
                "一部の情報が不足しています。理由に挙がった項目はコンソールや CloudTrail で手動で確認できます。",
            ),
        ),
        "verify-containment" => (
            words("Verify containment", "封じ込めを検証"),
            words(
                "Nobody has read back whether the instance is contained: run the containment again, or look at its security groups by hand.",
                "封じ込めの結果を確認できていません。再実行するか、セキュリティグループを手動で確認してください。",
            ),
        ),
        "seal-evidence" => (
            words("Seal evidence", "証拠を封印"),
            words(
                "The record of the evidence is not complete: seal the case again before anybody relies on it.",
                "証拠の記録が完全ではありません。利用する前にケースを封印し直してください。",
            ),
        ),
        _ => return None,
    };
    Some(About { title, by_hand })
}

/// What a status means for the person who reads it, where the step is open.
pub(crate) fn open(status: &str) -> Words {
    match status {
        "InProgress" => words(
            "AWS was still at it when the case was sealed. Look again, or run the containment again.",
            "封印の時点で AWS の処理が続いていました。あとで確認するか、封じ込めを再実行してください。",
        ),
        "Unsupported" => words(
            "AWS does not offer this for the instance. Decide whether it needs another measure.",
            "このインスタンスでは AWS が対応していません。別の対策が必要か判断してください。",
        ),
        "Planned" => words("It was only planned. Nothing was changed.", "計画のみで、何も変更していません。"),
        _ => words(
            "It failed. Running the containment again is safe: only what is missing is done.",
            "失敗しました。封じ込めの再実行は安全です。不足している部分だけが行われます。",
        ),
    }
}

//! What an attacker can still do, and what to do about it.
//!
//! A risk is known by a phrase of the step that names it. The rest of the sentence, such as the name of a resource or AWS's
//! own words, has no say in the advice.

use crate::words::{Words, words};

/// What a risk is about, and what to do about it.
pub(crate) struct Advice {
    pub title: Words,
    pub advice: Words,
}

/// The advice for a risk in a step's words; a general one for an unknown risk.
pub(crate) fn advice(risk: &str) -> Advice {
    let known = KNOWN.iter().find(|(phrases, ..)| phrases.iter().any(|phrase| risk.contains(phrase)));
    let (title, advice) = known.map_or(UNKNOWN, |(_, title, advice)| (*title, *advice));
    Advice { title, advice }
}

const UNKNOWN: (Words, Words) = (
    words("Another risk, in the step's own words", "残存リスク（ステップの報告）"),
    words(
        "This report has no specific advice for it. Decide who looks into it, and note the result in the case.",
        "このレポートには個別の対処がありません。担当者を決めて確認し、結果をケースに記録してください。",
    ),
);

type Known = (&'static [&'static str], Words, Words);

/// What the steps say, by a phrase of each. Their facts: docs/aws-behaviour.md.
const KNOWN: &[Known] = &[
    (
        &["the NAT gateway"],
        words("Open connections through a NAT gateway may go on", "NAT ゲートウェイ経由の接続が続いている可能性"),
        words(
            "On the network ACL of the NAT gateway's own subnet, deny the instance's private address inbound and outbound: this \
             affects only the instance, unless it is in the same subnet. Or stop the instance after its memory is captured. \
             Flow logs with ACCEPT after the isolation show that a connection is alive.",
            "NAT ゲートウェイ側のサブネットのネットワーク ACL で、インスタンスのプライベートアドレスをインバウンド・アウトバウンドとも\
             拒否してください（インスタンスと別のサブネットなら、影響はこのインスタンスだけです）。またはメモリ取得後にインスタンスを\
             停止します。隔離後のフローログに ACCEPT があれば、接続が生きています。",
        ),
    ),
    (
        &["the egress-only internet gateway"],
        words("Open IPv6 connections to the internet may go on", "インターネットへの IPv6 接続が続いている可能性"),
        words(
            "Deny the attacker's IPv6 addresses on the network ACL of the instance's subnet, or remove the route to the \
             egress-only gateway from its route table. Both affect the whole subnet. Or stop the instance after its memory is captured.",
            "インスタンスのサブネットのネットワーク ACL で攻撃者の IPv6 アドレスを拒否するか、Egress-Only インターネットゲートウェイへの\
             ルートを外してください（どちらもサブネット全体に影響します）。またはメモリ取得後にインスタンスを停止します。",
        ),
    ),
    (
        &["the gateway endpoint"],
        words("Open connections to S3 or DynamoDB may go on", "S3・DynamoDB への接続が続いている可能性"),
        words(
            "The instance's own credentials are denied there once they are revoked; the attacker's own are not. Narrow the \
             endpoint's policy to your accounts (aws:ResourceAccount, aws:PrincipalAccount).",
            "インスタンスの認証情報は無効化後は拒否されますが、攻撃者自身の認証情報は使えます。エンドポイントポリシーを自社のアカウントに\
             限定してください（aws:ResourceAccount、aws:PrincipalAccount）。",
        ),
    ),
    (
        &["(Network Firewall or Gateway Load Balancer)"],
        words("Open connections through a firewall may go on", "ファイアウォール経由の接続が続いている可能性"),
        words(
            "Drop the instance's address in the firewall's own rules, and end its flows there.",
            "ファイアウォール側のルールでインスタンスのアドレスを破棄し、既存のフローを切断してください。",
        ),
    ),
    (
        &["a Network Load Balancer, a PrivateLink interface endpoint"],
        words(
            "Open connections through a load balancer or PrivateLink may go on",
            "ロードバランサーや PrivateLink 経由の接続が続いている可能性",
        ),
        words(
            "Check under Steps that the instance has left its load balancers; remove it from Global Accelerator by hand. For \
             PrivateLink, deny the instance's address in the security groups of the interface endpoints. Whatever is left ends when \
             the instance is stopped.",
            "「各ステップの結果」でロードバランサーからの登録解除を確認し、Global Accelerator からは手動で外してください。PrivateLink は\
             インターフェイスエンドポイントのセキュリティグループで遮断します。残る接続は、インスタンスを停止すると切れます。",
        ),
    ),
    (
        &["AWS does not show whether open connections were cut"],
        words("AWS does not show whether open connections are cut", "既存の接続が切れたかは AWS から確認できない"),
        words(
            "Read the flow logs of the instance's interfaces: ACCEPT after the isolation means that a connection lives. Then use a \
             network ACL, or stop the instance after its memory is captured.",
            "ネットワークインターフェイスのフローログを確認してください。隔離後の ACCEPT は接続が生きていることを示します。その場合は\
             ネットワーク ACL で遮断するか、メモリ取得後にインスタンスを停止してください。",
        ),
    ),
    (
        &["no security group filters the VPC's DNS resolver"],
        words("DNS and the metadata service stay reachable", "DNS とメタデータサービスには到達できる"),
        words(
            "Close DNS with a Route 53 Resolver DNS Firewall rule group on the VPC that lets only known names through; it affects the \
             whole VPC. Credentials from the metadata service are useless while the role denies this instance; when no capture \
             needs the service, disable it in the instance's metadata options.",
            "DNS は、既知の名前だけを許可する Route 53 Resolver DNS Firewall のルールグループを VPC に関連付けて塞ぎます（VPC 全体に影響）。\
             メタデータサービスの認証情報は、ロールがこのインスタンスを拒否している間は使えません。取得作業で不要になったら、\
             インスタンスメタデータオプションで無効にできます。",
        ),
    ),
    (
        &["could not be put on the conversion group", "there is no conversion group in"],
        words("Open connections were not cut", "既存の接続が切断されていない"),
        words(
            "New connections are blocked, old ones may go on. Run the containment again once the cause in the text is fixed, deny the \
             attacker's addresses on a network ACL, or stop the instance after its memory is captured.",
            "新しい接続は遮断されますが、既存の接続は続く可能性があります。原因を取り除いて再実行するか、ネットワーク ACL で攻撃者の\
             アドレスを拒否するか、メモリ取得後にインスタンスを停止してください。",
        ),
    ),
    (
        &["had rules that somebody else added"],
        words("Somebody had put rules on the isolation group", "隔離用セキュリティグループにルールが追加されていた"),
        words(
            "Find out in CloudTrail who added them (AuthorizeSecurityGroupIngress, AuthorizeSecurityGroupEgress), revoke that \
             permission, and check every other instance on the group.",
            "CloudTrail で追加した人物を確認し（AuthorizeSecurityGroupIngress、AuthorizeSecurityGroupEgress）、その権限を外してください。\
             同じグループを使うほかのインスタンスも確認が必要です。",
        ),
    ),
    (
        &["which connections cannot be cut is unknown"],
        words("Which connections go on is unknown", "続いている接続を特定できない"),
        words(
            "Check the route tables of the instance's subnets yourself: connections through NAT gateways, egress-only gateways, \
             endpoints and firewalls may go on. Run the containment again to have them listed.",
            "サブネットのルートテーブルを手動で確認してください。NAT ゲートウェイ、Egress-Only ゲートウェイ、エンドポイント、ファイアウォール経由の\
             接続は続く可能性があります。再実行すると一覧が作られます。",
        ),
    ),
    (
        &["(role chaining)"],
        words(
            "Sessions and users that the attacker made are not revoked",
            "攻撃者が作ったセッションやユーザーは無効化されない",
        ),
        words(
            "In CloudTrail, find what the role's session with this instance's id did: AssumeRole, CreateUser, CreateAccessKey, \
             CreateLoginProfile, PutRolePolicy. Revoke the sessions of the roles it reached, and delete what it created.",
            "CloudTrail で、このインスタンス ID を名前に持つロールセッションの操作（AssumeRole、CreateUser、CreateAccessKey、CreateLoginProfile、\
             PutRolePolicy など）を調べてください。到達したロールのセッションを無効化し、作成されたものを削除します。",
        ),
    ),
    (
        &["other instances use the same role"],
        words("Other instances use the same role", "ほかのインスタンスも同じロールを使用"),
        words(
            "Monitor those instances, and what the role does, in CloudTrail. If the attacker was after the role's permissions, run the \
             containment again with RevokeAllSessions: it interrupts all of them until they get new credentials.",
            "それらのインスタンスとロールの操作を CloudTrail で監視してください。ロールの権限が狙いだった場合は RevokeAllSessions を付けて\
             再実行します（新しい認証情報を得るまで、すべてのインスタンスが中断します）。",
        ),
    ),
    (
        &["launches a replacement from the same", "so it launches a replacement"],
        words("A replacement starts with the same way in", "同じ侵入口を持つ代替インスタンスが起動する"),
        words(
            "Fix the image or launch template before the replacement serves users, or suspend the group's Launch process until then. \
             Monitor the replacement for the same signs.",
            "代替インスタンスが利用される前に AMI や起動テンプレートを修正するか、それまでグループの Launch プロセスを停止してください。\
             代替インスタンスにも同じ兆候がないか監視します。",
        ),
    ),
    (
        &["it can no longer be detached"],
        words("The Auto Scaling group is terminating the instance", "Auto Scaling グループがインスタンスを終了中"),
        words(
            "Check at once that the snapshots are complete. If there is a termination lifecycle hook, extend it; what is in no \
             snapshot will be lost.",
            "スナップショットが完了しているか直ちに確認してください。終了ライフサイクルフックがあれば延長します。スナップショットにない\
             データは失われます。",
        ),
    ),
    (
        &["is in the warm pool of"],
        words("The instance is in a warm pool", "インスタンスがウォームプールにある"),
        words(
            "Keep the group from using it: suspend the group's Launch and Terminate processes, or detach the instance when it is in service.",
            "グループに使われないよう Launch と Terminate プロセスを停止するか、稼働状態になった時点で切り離してください。",
        ),
    ),
    (
        &["may terminate the instance while it is a member"],
        words("The Auto Scaling group may terminate the instance", "Auto Scaling グループに終了される可能性"),
        words(
            "Suspend the group's processes Terminate, HealthCheck and ReplaceUnhealthy now, and detach the instance.",
            "グループの Terminate、HealthCheck、ReplaceUnhealthy プロセスを直ちに停止し、インスタンスを切り離してください。",
        ),
    ),
    (
        &["target groups of type `ip` in other VPCs"],
        words("Load balancers in other VPCs were not searched", "ほかの VPC のロードバランサーは未確認"),
        words(
            "If VPCs are peered, check their target groups of type ip for the instance's addresses, and deregister them by hand.",
            "VPC ピアリングがある場合は、相手側の ip タイプのターゲットグループにこのインスタンスのアドレスがないか確認し、手動で登録解除してください。",
        ),
    ),
    (
        &["one volume at a time and not at the same moment"],
        words("The snapshots show different moments", "スナップショットの時点がそろっていない"),
        words(
            "Do not rely on consistency across volumes (RAID, LVM, databases); compare the times of each snapshot.",
            "複数のボリュームにまたがる整合性（RAID、LVM、データベースなど）は前提にせず、各スナップショットの時刻を確認してください。",
        ),
    ),
    (
        &["under the account's default key for EBS"],
        words(
            "The copies cannot be shared with a forensic account",
            "コピーをフォレンジック用アカウントと共有できない",
        ),
        words(
            "Set SnapshotKeyArn to a key in this Region, and run the containment again.",
            "SnapshotKeyArn にこのリージョンのキーを設定し、封じ込めを再実行してください。",
        ),
    ),
    (
        &["until the capture ends,"],
        words(
            "A way to Systems Manager and S3 is open until the capture ends",
            "取得が終わるまで Systems Manager と S3 への経路が開いている",
        ),
        words(
            "Check that the window was closed: the interface must be on the isolation group. Until then, restrict the endpoints' \
             policies to your own accounts (aws:ResourceAccount, aws:PrincipalAccount).",
            "取得後に閉じられたか（ネットワークインターフェイスが隔離用セキュリティグループにあるか）を確認してください。それまでは\
             エンドポイントポリシーを自社のアカウントに限定します（aws:ResourceAccount、aws:PrincipalAccount）。",
        ),
    ),
    (
        &["that were open through the capture window"],
        words("Connections through the capture window may go on", "取得用の経路の接続が続いている可能性"),
        words(
            "Remove the instance's address from the interface endpoints' own security groups, and narrow the endpoints' policies. \
             Whatever is left ends when the instance is stopped.",
            "インターフェイスエンドポイントのセキュリティグループからインスタンスのアドレスを外し、エンドポイントポリシーを限定してください。\
             残る接続は、インスタンスを停止すると切れます。",
        ),
    ),
    (
        &["a capture through", "so no window for a capture is opened"],
        words("The host can no longer be captured through the network", "隔離後はネットワーク経由で取得できない"),
        words(
            "Keep the instance running. Create endpoints for Systems Manager and S3 in its VPC and contain it again, or capture from a \
             snapshot and the serial console; next time, capture first (CaptureMode CaptureFirst).",
            "インスタンスは稼働させたままにします。VPC に Systems Manager と S3 のエンドポイントを用意して再実行するか、スナップショットや\
             シリアルコンソールから調査してください。次回は先に取得する CaptureFirst を検討します。",
        ),
    ),
    (
        &["programs that a session started on the host keep running"],
        words("Sessions can be opened again, and leave programs behind", "セッションの再開や残されたプログラムに注意"),
        words(
            "Ask each owner that the text names whether the session was theirs; if not, revoke that identity's credentials. Deny \
             ssm:StartSession on this instance until the case is closed.",
            "本文に挙がった各利用者に、本人のセッションか確認してください。違う場合はその認証情報を無効化します。ケースが終結するまで、\
             このインスタンスへの ssm:StartSession を禁止してください。",
        ),
    ),
    (
        &["until its cooling-off period ends,"],
        words("A snapshot's lock can still be removed", "スナップショットのロックをまだ解除できる"),
        words(
            "Monitor ec2:UnlockSnapshot in the forensic account until the cooling-off period is over.",
            "クーリングオフ期間が終わるまで、フォレンジック用アカウントで ec2:UnlockSnapshot を監視してください。",
        ),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The sources of all steps, without their line breaks, so that a sentence over two lines is one.
    fn sources() -> String {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let homes = ["crates", "functions"].map(|home| project.join(home).read_dir().expect("crates"));
        let crates = homes.into_iter().flatten().map(|entry| entry.expect("a crate").path());
        let sources = crates.filter(|path| !path.ends_with("case-report")).map(|path| path.join("src"));
        let sources = sources.filter(|source| source.is_dir());
        let files = sources.flat_map(|path| path.read_dir().expect("src").map(|entry| entry.expect("a file").path()));
        let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
        let text: String = files.map(|path| std::fs::read_to_string(path).expect("text")).collect();
        text.replace("\\\n", "").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_phrase_is_one_that_a_step_still_uses() {
        let sources = sources();
        for phrase in KNOWN.iter().flat_map(|(phrases, ..)| *phrases) {
            assert!(sources.contains(phrase), "no step says: {phrase}");
        }
    }

    #[test]
    fn what_the_steps_name_today_has_its_own_advice() {
        for (risk, title) in [
            (
                "connections of eni-1 that are open through the NAT gateway nat-1 are tracked automatically and may go on",
                "Open connections through a NAT gateway may go on",
            ),
            (
                "no security group filters the VPC's DNS resolver, the instance metadata service, DHCP",
                "DNS and the metadata service stay reachable",
            ),
            (
                "how many other instances use the same role is unknown; their sessions are not denied: ec2:DescribeInstances",
                "Other instances use the same role",
            ),
            (
                "web is at its minimum size: its capacity could not be decremented, so it launches a replacement",
                "A replacement starts with the same way in",
            ),
        ] {
            assert_eq!(advice(risk).title.en, title);
        }
    }

    #[test]
    fn an_unknown_risk_gets_general_advice() {
        assert_eq!(advice("the moon is full").title, UNKNOWN.0);
    }
}

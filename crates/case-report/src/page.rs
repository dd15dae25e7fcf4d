//! The page, from the verdict down.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use custody::{ItemState, Manifest, Step};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;
use sha2::{Digest, Sha256};
use verdict::{Status, StepName, Verdict};

use crate::evidence::{count, evidence, pair, snapshots, wide};
use crate::quote::{code, is_harmless, more, or_none, plain, said, short, value};
use crate::release::{change_row, release, released};
use crate::risks::advice;
use crate::steps::{about, about_step, open};
use crate::time::{length, millis, shown};
use crate::timeline::timeline;
use crate::words::{Kind, Words, both, heading, status, words};

const STYLE: &str = include_str!("style.css");

/// Longer lists than these are in the manifest only.
const OPEN: usize = 40;
const STEPS: usize = 100;
const CHANGES: usize = 100;
const RISKS: usize = 60;
const FACTS: usize = 100;

/// The report of a case, whole and self-contained: the content of `report.html`.
///
/// Pure. Whatever the manifest's strings are, they can neither run, nor load anything, nor add a row or a heading; long
/// ones are cut, and the page says so.
pub fn html(manifest: &Manifest) -> String {
    let word = heading(&manifest.verdict).word;
    let title = format!("{} / {}: {}", word.en, word.ja, plain(&manifest.instance_id, 40));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                meta name="robots" content="noindex";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                // Before everything that they switch: a style sheet can only look ahead.
                input.switch #lang-en type="radio" name="language" checked;
                input.switch #lang-ja type="radio" name="language";
                header.bar {
                    p.brand { strong { "Cordon" } " " span { (words("Incident report", "インシデント報告")) } }
                    p.languages {
                        label for="lang-en" lang="en" { "English" }
                        label for="lang-ja" lang="ja" { "日本語" }
                    }
                }
                main { (contents(manifest)) }
                footer {
                    p {
                        (words(
                            "This page puts the case's manifest.json into words. The manifest is what is signed: where the two differ, it counts. \
                             All times are UTC, by AWS's clocks. Text in this typeface is quoted as found, and may be an attacker's:",
                            "このページは、ケースの manifest.json の内容を文章で示すものです。署名されているのはマニフェストであり、相違がある場合はマニフェストが\
                             優先します。時刻はすべて AWS の時計による UTC です。次の書体の文字は取得したままの引用で、攻撃者が書いたものかもしれません：",
                        ))
                        " " (code("i-0123456789abcdef0")) ". "
                        (words(
                            "A boxed code like this one stands for a character that would be invisible or reorder the text:",
                            "枠付きの符号は、見えない文字や並びを変える文字を表します：",
                        ))
                        " " (code("\u{202E}"))
                    }
                }
            }
        }
    };
    page.into_string()
}

/// Only this page's own style sheet is allowed, by its hash.
fn policy() -> String {
    let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'")
}

/// The sections below the verdict: anchor, heading.
const SECTIONS: [(&str, Words); 8] = [
    ("case", words("Case", "ケース")),
    ("timeline", words("Timeline", "時系列")),
    ("risks", words("Residual risks", "残存リスク")),
    ("steps", words("Steps", "各ステップの結果")),
    ("evidence", words("Evidence", "証拠")),
    ("facts", words("Facts for the investigator", "調査用の情報")),
    ("check", words("How to check the evidence", "証拠の検証方法")),
    ("release", words("How to release", "封じ込めの解除方法")),
];

fn contents(manifest: &Manifest) -> Markup {
    let verdict = heading(&manifest.verdict);
    html! {
        section.verdict.(verdict.kind.class()) {
            (verdict.kind.mark())
            div {
                h1 { (verdict.word) }
                p.meaning { (verdict.meaning) }
                @if verdict.kind == Kind::Unknown { p { (short(manifest.verdict.as_str())) } }
                p.who { (short(&manifest.instance_id)) " · " (short(&manifest.region)) " · " (shown(&manifest.sealed_at)) }
            }
        }
        (alarms(manifest))
        section {
            h2 #open { (words("What is open", "未完了の項目")) }
            @if manifest.open.is_empty() {
                p { (words("Nothing.", "ありません。")) }
            } @else {
                ul.open {
                    @for line in manifest.open.iter().take(OPEN) { li { (said(line)) } }
                    (more(manifest.open.len(), OPEN))
                }
            }
        }
        section {
            h2 #now { (words("What to do now", "今すべきこと")) }
            ol.now { @for item in to_do(manifest) { li { (item) } } }
        }
        nav aria-labelledby="contents" {
            h2 #contents { (words("On this page", "目次")) }
            ul { @for (anchor, heading) in SECTIONS { li { a href=(format!("#{anchor}")) { (heading) } } } }
        }
        @for (anchor, heading) in SECTIONS {
            section {
                h2 id=(anchor) { (heading) }
                @match anchor {
                    "case" => (case(manifest)),
                    "timeline" => (timeline(&manifest.steps)),
                    "risks" => (risks(manifest)),
                    "steps" => (steps(&manifest.steps, true)),
                    "evidence" => {
                        (evidence(manifest))
                        h3.part { (words("Snapshots", "スナップショット")) }
                        (snapshots(manifest))
                    }
                    "facts" => (facts(&manifest.facts)),
                    "check" => (check(manifest)),
                    _ => {
                        @if let Some(release) = &manifest.release {
                            (released(release, &manifest.sealed_at))
                            (steps(&release.steps, false))
                        }
                        (release(manifest))
                    }
                }
            }
        }
    }
}

/// What contradicts the verdict, or the evidence itself.
fn alarms(manifest: &Manifest) -> Markup {
    let (altered, missing) = (count(manifest, ItemState::Altered), count(manifest, ItemState::Missing));
    let contradicts = manifest.verdict == Verdict::Contained
        && (!manifest.open.is_empty() || !manifest.steps.iter().all(|step| step.status.is_good()));
    html! {
        @if contradicts {
            p.alarm { (Kind::Warning.mark()) (words(
                "The verdict says contained, but something is open. Go by what is open.",
                "判定は封じ込め済みですが、未完了の項目があります。未完了の項目を優先して対応してください。",
            )) }
        }
        @if altered + missing > 0 {
            p.alarm { (Kind::Bad.mark()) span { (both(
                html! { "Evidence altered: " (altered) ", missing: " (missing) ". Treat it as tampering until it is explained." },
                html! { "証拠の改変 " (altered) " 件、欠落 " (missing) " 件。原因がわかるまで改ざんとして扱ってください。" },
            )) } }
        }
    }
}

/// What a person does next, the most urgent first.
fn to_do(manifest: &Manifest) -> Vec<Markup> {
    let mut items = Vec::new();
    let is_isolation = |step: &Step| step.step == StepName::IsolateNetwork;
    let mut open_steps: Vec<&Step> = manifest.steps.iter().filter(|step| !step.status.is_good()).collect();
    open_steps.sort_by_key(|step| (!is_isolation(step), step.status != Status::Failed));
    let isolation_is_open = open_steps.first().is_some_and(|step| is_isolation(step));
    match manifest.verdict.known() {
        Some(Verdict::Contained | Verdict::PartiallyContained) => items.push(html! { (words(
            "Leave the instance running and do not log in to it: its memory is evidence until the investigator says otherwise.",
            "インスタンスは稼働させたまま、ログインしないでください。調査担当者の指示があるまで、メモリも証拠です。",
        )) }),
        Some(Verdict::NotApproved) => items.push(html! { (words(
            "Find out who refused, or which execution holds the case now, and why. To contain the instance after all, start by hand: \
             that asks nobody.",
            "誰が承認しなかったのか、またはどの実行がケースを引き継いだのか、その理由を確認してください。封じ込める場合は手動で開始します\
             （手動の開始では承認を求めません）。",
        )) }),
        _ if !isolation_is_open => items.push(html! { (about_step(StepName::IsolateNetwork).by_hand) }),
        _ => {}
    }
    if let Some(release) = &manifest.release {
        return to_do_after_release(&release.steps);
    }
    for step in open_steps.iter().take(OPEN) {
        let (kind, word) = status(&step.status);
        let about = about(step);
        items.push(html! {
            strong { @match &about { Some(about) => (about.title), None => (short(&step.step)) } } " "
            @match word { Some(word) => (kind.badge(word)), None => (kind.badge(short(step.status.as_str()))) }
            br;
            @if let Some(about) = &about { (about.by_hand) br; }
            (open(&step.status))
        });
    }
    let unfinished = manifest.snapshots.iter().filter(|snapshot| snapshot.state != "completed").count();
    if unfinished > 0 {
        items.push(both(
            html! { "Snapshots that were not complete when the case was sealed: " (unfinished) ". Check them again before anybody changes the volumes." },
            html! { "封印の時点で " (unfinished) " 件のスナップショットが未完了でした。ボリュームに手を加える前に再確認してください。" },
        ));
    }
    let risks = manifest.residual_risk.len();
    if risks > 0 {
        items.push(html! { a href="#risks" { (both(
            html! { "Go through the residual risks: " (risks) ", each with what to do about it." },
            html! { "残存リスク（" (risks) " 件）と、それぞれの対処を確認してください。" },
        )) } });
    }
    items.push(html! { a href="#check" { (words(
        "Check the evidence before anybody relies on it, and hand the case to the investigator.",
        "証拠を検証し、ケースを調査担当者に引き渡してください。",
    )) } });
    items
}

/// What a release has left to do.
fn to_do_after_release(steps: &[Step]) -> Vec<Markup> {
    let left = steps.iter().filter(|step| !step.status.is_good()).take(OPEN).map(|step| {
        let (kind, word) = status(&step.status);
        html! {
            strong { (short(&step.step)) } " "
            @match word { Some(word) => (kind.badge(word)), None => (kind.badge(short(step.status.as_str()))) }
            br;
            @if let Some(reason) = &step.reason { (said(reason)) }
        }
    });
    let check = html! { a href="#check" { (words(
        "The evidence stays: check it before anybody relies on it.",
        "証拠は残っています。利用する前に検証してください。",
    )) } };
    left.chain([check]).collect()
}

fn case(manifest: &Manifest) -> Markup {
    html! {
        dl.pairs.case {
            (pair(words("Instance", "インスタンス"), code(&manifest.instance_id)))
            (pair(words("Account", "アカウント"), code(&manifest.account_id)))
            (pair(words("Region", "リージョン"), code(&manifest.region)))
            (pair(words("Sealed at", "封印日時"), shown(&manifest.sealed_at)))
            (wide(words("Case", "ケース"), code(&manifest.case_id)))
            (wide(words("Sealed by", "封印者"), or_none(Some(&manifest.sealed_by))))
            (wide(words("Execution", "実行"), or_none(Some(&manifest.execution))))
            @if let Some(previous) = &manifest.previous {
                (wide(words("Follows the manifest", "前のマニフェスト"), html! {
                    (both("version", "バージョン")) " " (code(&previous.version_id)) br; "SHA-256 " (code(&previous.sha256))
                }))
            }
        }
    }
}

fn risks(manifest: &Manifest) -> Markup {
    html! {
        @if manifest.residual_risk.is_empty() {
            p { (words("No step has named any.", "ステップからの報告はありません。")) }
        } @else {
            p { (words(
                "What an attacker can still do although the steps are done, in the steps' own words, and what to do about it.",
                "ステップが完了していても攻撃者に残る可能性です。ステップの報告（英語の原文）と対処を示します。",
            )) }
            ol.risks {
                @for risk in manifest.residual_risk.iter().take(RISKS) {
                    @let advice = advice(risk);
                    li {
                        h3 { (advice.title) }
                        p.quoted { (said(risk)) }
                        p.advice { strong { (words("What to do:", "対処：")) } " " (advice.advice) }
                    }
                }
                (more(manifest.residual_risk.len(), RISKS))
            }
        }
    }
}

/// Each step with its changes. A step's title says what a containment does, so a release goes without.
fn steps(steps: &[Step], titled: bool) -> Markup {
    let first = steps.iter().filter_map(|step| millis(step.began.as_deref()?)).min();
    html! {
        @if steps.is_empty() { p { (words("The manifest has no steps.", "マニフェストにステップがありません。")) } }
        @for step in steps.iter().take(STEPS) {
            @let (kind, word) = status(&step.status);
            article.step.(kind.class()) {
                div.top {
                    h3 {
                        @if let Some(about) = about(step).filter(|_| titled) { (about.title) " " }
                        span.name { (short(&step.step)) }
                    }
                    @match word { Some(word) => (kind.badge(word)), None => (kind.badge(short(step.status.as_str()))) }
                }
                (times(step, first))
                @if let Some(reason) = &step.reason { p.quoted { (said(reason)) } }
                @if !step.changes.is_empty() {
                    table.cards.changes role="table" {
                        thead role="rowgroup" {
                            tr role="row" {
                                th role="columnheader" scope="col" { (words("Resource", "リソース")) }
                                th role="columnheader" scope="col" { (words("Attribute", "属性")) }
                                th role="columnheader" scope="col" { (words("Before", "変更前")) }
                                th role="columnheader" scope="col" { (words("After", "変更後")) }
                            }
                        }
                        tbody role="rowgroup" { @for change in step.changes.iter().take(CHANGES) { (change_row(change)) } }
                    }
                    ul.plain { (more(step.changes.len(), CHANGES)) }
                }
            }
        }
        ul.plain { (more(steps.len(), STEPS)) }
    }
}

fn times(step: &Step, first: Option<i64>) -> Markup {
    let at = |text: &Option<String>| text.as_deref().and_then(millis);
    html! {
        p.times {
            @match (step.began.as_deref(), at(&step.began), at(&step.ended), first) {
                (Some(began), Some(from), to, Some(first)) => {
                    (shown(began)) " " span.soft { "(+" (length(from - first)) ")" }
                    @match to.filter(|to| *to >= from) {
                        Some(to) => { " · " (length(to - from)) }
                        None => { " · " (words("no end recorded", "終了の記録なし")) }
                    }
                }
                (Some(began), ..) => (shown(began)),
                _ => (words("no time recorded", "時刻の記録なし")),
            }
        }
    }
}

/// The facts of `describe-instance` and `collect-facts` have names in both languages; any others go by their own.
fn facts(facts: &Value) -> Markup {
    let pairs = facts.as_object();
    html! {
        @match pairs {
            Some(pairs) if !pairs.is_empty() => {
                dl.pairs.facts {
                    @for (name, fact) in pairs.iter().take(FACTS) {
                        @let name = match fact_name(name) { Some(words) => html! { (words) }, None => code(name) };
                        div.wide-pair[is_nested(fact)] { dt { (name) } dd { (value(fact)) } }
                    }
                }
                ul.plain { (more(pairs.len(), FACTS)) }
            }
            _ => p { (value(facts)) }
        }
    }
}

/// Whether a value needs the whole width.
fn is_nested(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.iter().any(|value| value.is_array() || value.is_object()),
        _ => value.is_object(),
    }
}

fn fact_name(name: &str) -> Option<Words> {
    Some(match name {
        "InstanceType" => words("Instance type", "インスタンスタイプ"),
        "State" => words("State", "状態"),
        "Spot" => words("Spot instance", "スポットインスタンス"),
        "Platform" => words("Platform", "プラットフォーム"),
        "ImageId" => words("Image (AMI)", "AMI"),
        "LaunchTime" => words("Launched", "起動日時"),
        "KeyName" => words("Key pair", "キーペア"),
        "Region" => words("Region", "リージョン"),
        "AvailabilityZone" => words("Availability Zone", "アベイラビリティーゾーン"),
        "VpcIds" => words("VPCs", "VPC"),
        "SubnetIds" => words("Subnets", "サブネット"),
        "PrivateIpAddresses" => words("Private addresses", "プライベート IP アドレス"),
        "PublicIpAddress" => words("Public address", "パブリック IP アドレス"),
        "SecurityGroups" => words("Security groups before", "封じ込め前のセキュリティグループ"),
        "Volumes" => words("Volumes", "ボリューム"),
        "InstanceProfileArn" => words("Instance profile", "インスタンスプロファイル"),
        "AutoScalingGroups" => words("Auto Scaling groups", "Auto Scaling グループ"),
        "Tags" => words("Tags", "タグ"),
        "Image" => words("About the image", "AMI の詳細"),
        "UserData" => words("User data", "ユーザーデータ"),
        "ConsoleOutput" => words("Console output", "コンソール出力"),
        "ConsoleScreenshot" => words("Console screenshot", "コンソールのスクリーンショット"),
        "CloudTrail" => words("CloudTrail events", "CloudTrail のイベント"),
        "Missed" => words("What could not be read", "読み取れなかったもの"),
        _ => return None,
    })
}

fn check(manifest: &Manifest) -> Markup {
    let parts = [&manifest.account_id, &manifest.region, &manifest.case_id];
    let (folder, prefix) = match parts.iter().all(|part| is_harmless(part)) {
        true => (manifest.case_id.as_str(), parts.map(String::as_str).join("/")),
        // Nobody should paste into a shell a name that neither AWS nor Cordon made.
        false => ("CASE", "ACCOUNT/REGION/CASE".to_owned()),
    };
    html! {
        ol.check {
            li {
                (words("Download the case. BUCKET is the stack's evidence bucket.", "ケースをダウンロードします。BUCKET はスタックの証拠バケットです。"))
                pre { code translate="no" { "aws s3 sync s3://BUCKET/cases/" (prefix) " " (folder) } }
            }
            li {
                (words(
                    "Get the public key from KMS or from somebody you trust, never from the folder itself. KEY is the stack's signing key.",
                    "公開鍵は KMS または信頼できる人から入手し、ダウンロードしたフォルダーのものは使わないでください。KEY はスタックの署名キーです。",
                ))
                pre { code translate="no" {
                    "aws kms get-public-key --key-id KEY --query PublicKey --output text | base64 --decode | openssl pkey -pubin -inform DER -out cordon.pem"
                } }
            }
            li {
                (words(
                    "Check the signature and every item: each is intact, altered or missing. This needs neither AWS nor a network.",
                    "署名とすべての項目を検証します。各項目について、改変なし・改変あり・欠落のいずれかが示されます。AWS もネットワークも不要です。",
                ))
                pre { code translate="no" { "cordon verify " (folder) " --public-key cordon.pem" } }
            }
            li {
                (words(
                    "Or check the signature with OpenSSL alone, and compare the hashes above with sha256sum.",
                    "OpenSSL だけで署名を検証し、上記のハッシュを sha256sum と比べることもできます。",
                ))
                pre { code translate="no" {
                    "openssl dgst -sha256 -verify cordon.pem -signature " (folder) "/manifest.json.sig " (folder) "/manifest.json"
                } }
            }
        }
        p {
            (words(
                "The download has the newest version of each object. If somebody has put a newer one over the evidence, it counts as altered: \
                 the version listed above is still in the bucket, and aws s3api get-object takes it as --version-id.",
                "ダウンロードされるのは各オブジェクトの最新バージョンです。上書きされている場合は「改変あり」になりますが、上記のバージョンはバケットに残っており、\
                 aws s3api get-object の --version-id で取得できます。",
            ))
        }
    }
}

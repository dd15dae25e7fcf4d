//! Evidence and snapshots: what there is, its state when the case was sealed, and where it comes from.

use std::collections::BTreeSet;

use custody::{Item, ItemState, Manifest, Snapshot};
use maud::{Markup, html};

use crate::quote::{cell, code, more, none, or_none, said, short, size};
use crate::time::shown;
use crate::words::{Kind, Words, both, words};

/// More items than this are in the manifest only; whatever is not intact comes first.
const ITEMS: usize = 400;
const SNAPSHOTS: usize = 200;
const CALLS: usize = 40;

fn state(state: ItemState) -> (Kind, Words) {
    match state {
        ItemState::Intact => (Kind::Good, words("Intact", "改変なし")),
        ItemState::Altered => (Kind::Bad, words("Altered", "改変あり")),
        ItemState::Missing => (Kind::Bad, words("Missing", "欠落")),
        ItemState::Unread => (Kind::Bad, words("Not readable", "読み取り不可")),
        ItemState::Unlisted => (Kind::Unknown, words("Unlisted", "台帳外")),
    }
}

/// How many items are in a state.
pub(crate) fn count(manifest: &Manifest, wanted: ItemState) -> usize {
    manifest.evidence.iter().filter(|item| item.state == wanted).count()
}

/// What is in the bucket.
pub(crate) fn evidence(manifest: &Manifest) -> Markup {
    let states = [ItemState::Intact, ItemState::Altered, ItemState::Missing, ItemState::Unread, ItemState::Unlisted];
    let mut items: Vec<&Item> = manifest.evidence.iter().collect();
    items.sort_by_key(|item| match item.state {
        ItemState::Altered | ItemState::Missing | ItemState::Unread => 0,
        ItemState::Unlisted => 1,
        ItemState::Intact => 2,
    });
    html! {
        @if items.is_empty() {
            p { (words("The case has no evidence in the bucket.", "このケースの証拠はバケットにありません。")) }
        } @else {
            p.counts {
                @for (kind, word, number) in states.map(|s| (state(s).0, state(s).1, count(manifest, s))) {
                    @if number > 0 { (kind.badge(html! { (number) " " (word) })) " " }
                }
            }
            p {
                (words(
                    "Intact: in the bucket with the ledger's version, size and hash. Altered: there, but not as the ledger says. Missing: in \
                     the ledger but not in the bucket. Not readable: its state is unknown. Unlisted: in the bucket but not in the ledger; none \
                     of Cordon's functions vouches for it.",
                    "改変なし：バージョン、サイズ、ハッシュが台帳と一致。改変あり：存在するが台帳と一致しない。欠落：台帳にあるがバケットにない。読み取り不可：状態不明。\
                     台帳外：バケットにあるが台帳にない（Cordon のどの関数も保証しない）。",
                ))
            }
            ol.items {
                @for item in items.iter().take(ITEMS) { (one(item, &manifest.execution)) }
                (more(items.len(), ITEMS))
            }
        }
    }
}

/// One item. Its execution is shown only if it is not the one that sealed the case.
fn one(item: &Item, sealing: &str) -> Markup {
    let (kind, word) = state(item.state);
    html! {
        li.item {
            div.top {
                h3 { (code(&item.name)) }
                (kind.badge(word))
            }
            @if let Some(note) = &item.note { p.note { (said(note)) } }
            dl.pairs {
                (pair(words("Size", "サイズ"), size(item.size)))
                (pair(words("Stored", "保存日時"), shown(&item.stored_at)))
                (pair(words("Stored by", "保存した関数"), code(&item.function)))
                (pair(words("About", "対象"), or_none(Some(&item.resource))))
                (wide(words("SHA-256", "SHA-256"), match &item.sha256 {
                    Some(hash) => code(hash),
                    None => html! { span.own { (words("none: see the note", "なし（注記を参照）")) } },
                }))
                (wide(words("Version", "バージョン"), or_none(Some(&item.version_id))))
                (wide(words("Request", "リクエスト ID"), or_none(item.request_id.as_deref())))
                @if let Some(caller) = &item.caller { (wide(words("Caller", "呼び出し元"), code(caller))) }
                @if let Some(execution) = item.execution.as_deref().filter(|execution| *execution != sealing) { (wide(words("Execution", "実行"), code(execution))) }
                @if !item.calls.is_empty() {
                    (wide(words("Replies to", "含まれる応答"), html! {
                        ul.values {
                            @for call in item.calls.iter().take(CALLS) { li { (code(call)) } }
                            (more(item.calls.len(), CALLS))
                        }
                    }))
                }
            }
        }
    }
}

/// A name and a value.
pub(crate) fn pair(name: Words, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// A name and a long value, over the whole width.
pub(crate) fn wide(name: Words, value: Markup) -> Markup {
    html! { div.wide-pair { dt { (name) } dd { (value) } } }
}

/// The snapshots, each copy after what it is a copy of.
pub(crate) fn snapshots(manifest: &Manifest) -> Markup {
    let all = &manifest.snapshots;
    html! {
        @if all.is_empty() {
            p { (words("The case has no snapshots.", "このケースのスナップショットはありません。")) }
        } @else {
            table.cards.snapshots role="table" {
                thead role="rowgroup" {
                    tr role="row" {
                        th role="columnheader" scope="col" { (SNAPSHOT) }
                        th role="columnheader" scope="col" { (SHOWS) }
                        th role="columnheader" scope="col" { (STATE) }
                        th role="columnheader" scope="col" { (KEY) }
                        th role="columnheader" scope="col" { (LOCK) }
                    }
                }
                tbody role="rowgroup" {
                    @for snapshot in by_lineage(&all[..all.len().min(SNAPSHOTS)]) { (snapshot_row(snapshot)) }
                }
            }
            ul.plain { (more(all.len(), SNAPSHOTS)) }
        }
    }
}

const SNAPSHOT: Words = words("Snapshot", "スナップショット");
const SHOWS: Words = words("Of what, when", "対象と時点");
const STATE: Words = words("State", "状態");
const KEY: Words = words("Key", "暗号化キー");
const LOCK: Words = words("Lock", "ロック");

fn snapshot_row(snapshot: &Snapshot) -> Markup {
    let (kind, word) = match snapshot.state.as_str() {
        "completed" => (Kind::Good, Some(words("Completed", "完了"))),
        "pending" => (Kind::Moving, Some(words("Pending", "作成中"))),
        "error" => (Kind::Bad, Some(words("Error", "エラー"))),
        _ => (Kind::Unknown, None),
    };
    html! {
        tr role="row" {
            (cell(SNAPSHOT, html! {
                (code(&snapshot.snapshot_id))
                br;
                span.soft { (code(&snapshot.account_id)) " " (code(&snapshot.region)) }
                @if let Some(source) = &snapshot.source_snapshot_id {
                    br; span.soft { (both(html! { "copy of " (code(source)) }, html! { (code(source)) " のコピー" })) }
                }
            }))
            (cell(SHOWS, html! {
                @if let Some(volume) = &snapshot.volume_id { (code(volume)) " " }
                @if let Some(device) = &snapshot.device_name { (code(device)) " " }
                (snapshot.volume_size) " GiB"
                @if let Some(started) = &snapshot.started_at { br; span.soft { (shown(started)) } }
            }))
            (cell(STATE, html! {
                @match word { Some(word) => (kind.badge(word)), None => (kind.badge(short(&snapshot.state))) }
                @if let Some(blocks) = &snapshot.blocks {
                    p.note {
                        (both(html! { (blocks.count) " blocks, lists " }, html! { "ブロック数 " (blocks.count) "、一覧 " }))
                        (code(&format!("snapshot-blocks-{}-*.txt", snapshot.snapshot_id)))
                        ", SHA-256 " (code(&blocks.sha256))
                    }
                }
            }))
            (cell(KEY, html! {
                @match (&snapshot.kms_key_id, snapshot.encrypted) {
                    (Some(key), _) => (code(key)),
                    (None, true) => span.own { (words("encrypted", "暗号化済み")) },
                    (None, false) => (Kind::Warning.badge(words("Not encrypted", "暗号化なし"))),
                }
            }))
            (cell(LOCK, match &snapshot.lock {
                Some(lock) => html! {
                    (code(&lock.state))
                    @if let Some(until) = &lock.expires_at { " " (both(html! { "until " (shown(until)) }, html! { (shown(until)) " まで" })) }
                },
                None => none(),
            }))
        }
    }
}

/// The snapshots with each copy right after its source. Those that name themselves, or each other, as source come last.
fn by_lineage(all: &[Snapshot]) -> Vec<&Snapshot> {
    let known: BTreeSet<&str> = all.iter().map(|snapshot| snapshot.snapshot_id.as_str()).collect();
    let source = |snapshot: &Snapshot| snapshot.source_snapshot_id.clone().filter(|id| known.contains(id.as_str()));
    let mut left: Vec<&Snapshot> = all.iter().collect();
    let mut ordered: Vec<&Snapshot> = Vec::new();
    let mut under: Vec<String> = Vec::new();
    while !left.is_empty() {
        let copy_of = |id: &String| left.iter().position(|snapshot| source(snapshot).as_ref() == Some(id));
        let next = match under.last() {
            Some(id) => copy_of(id),
            None => left.iter().position(|snapshot| source(snapshot).is_none()).or(Some(0)),
        };
        match next {
            Some(next) => {
                let snapshot = left.remove(next);
                under.push(snapshot.snapshot_id.clone());
                ordered.push(snapshot);
            }
            None => {
                under.pop();
            }
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(id: &str, source: Option<&str>) -> Snapshot {
        Snapshot { snapshot_id: id.into(), source_snapshot_id: source.map(Into::into), ..Snapshot::default() }
    }

    #[test]
    fn a_copy_follows_its_source_and_a_circle_loses_nothing() {
        let all = [
            snapshot("a", None),
            snapshot("b", None),
            snapshot("copy of a", Some("a")),
            snapshot("copy of the copy", Some("copy of a")),
            snapshot("circle 1", Some("circle 2")),
            snapshot("circle 2", Some("circle 1")),
            snapshot("of a stranger's", Some("elsewhere")),
        ];
        let order: Vec<&str> = by_lineage(&all).into_iter().map(|s| s.snapshot_id.as_str()).collect();
        assert_eq!(order, ["a", "copy of a", "copy of the copy", "b", "of a stranger's", "circle 1", "circle 2"]);
    }
}

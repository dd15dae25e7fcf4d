//! Untrusted text: quoted, never interpreted.
//!
//! Tags, names, reasons and whatever comes from the host may be the attacker's. `maud` escapes them; this module makes
//! visible what would hide, reorder or pile up text, isolates each quotation, and cuts it at a sensible length.

use maud::{Markup, Render, html};
use serde_json::Value;

use crate::words::{both, words};

/// A name, an id, an ARN.
const NAME: usize = 300;
/// A name without room for a long one: a step's, a status.
const SHORT: usize = 60;
/// A reason, a risk, a note.
const SENTENCE: usize = 2_000;
/// One value of a tag, a fact, a change.
const VALUE: usize = 1_000;
/// Members of a list or an object.
const ENTRIES: usize = 60;
/// Lists in objects in lists.
const DEPTH: usize = 6;

/// An id, a name or a value, as it is.
pub(crate) fn code(text: &str) -> Markup {
    html! { bdi.code translate="no" { (seen(text, NAME)) } }
}

/// A name in a heading, a badge, a line with others.
pub(crate) fn short(text: &str) -> Markup {
    html! { bdi.code translate="no" { (seen(text, SHORT)) } }
}

/// A sentence from a step or from AWS: English, and left so.
pub(crate) fn said(text: &str) -> Markup {
    html! { bdi.said lang="en" { (seen(text, SENTENCE)) } }
}

/// An id, or the word for none.
pub(crate) fn or_none(text: Option<&str>) -> Markup {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => code(text),
        None => none(),
    }
}

/// The page's own word for an absent value; set differently, so that no quoted "none" looks like it.
pub(crate) fn none() -> Markup {
    html! { span.own { (words("none", "なし")) } }
}

/// Any JSON, readably: lists as lists, objects as pairs.
pub(crate) fn value(value: &Value) -> Markup {
    nested(value, 0)
}

fn nested(value: &Value, depth: usize) -> Markup {
    match value {
        Value::Null => none(),
        Value::String(text) if text.is_empty() => html! { span.own { (words("empty text", "空の文字列")) } },
        Value::String(text) => html! { bdi.code translate="no" { (seen(text, VALUE)) } },
        Value::Bool(_) | Value::Number(_) => code(&value.to_string()),
        Value::Array(list) if list.is_empty() => html! { span.own { (words("empty list", "空のリスト")) } },
        Value::Object(pairs) if pairs.is_empty() => html! { span.own { (words("empty", "空")) } },
        Value::Array(_) | Value::Object(_) if depth == DEPTH => {
            html! { bdi.code translate="no" { (seen(&value.to_string(), VALUE)) } }
        }
        Value::Array(list) => html! {
            ul.values {
                @for value in list.iter().take(ENTRIES) { li { (nested(value, depth + 1)) } }
                (more(list.len(), ENTRIES))
            }
        },
        Value::Object(pairs) => html! {
            ul.values.pairs {
                @for (name, value) in pairs.iter().take(ENTRIES) {
                    li { bdi.code.key translate="no" { (seen(name, NAME)) } " " (nested(value, depth + 1)) }
                }
                (more(pairs.len(), ENTRIES))
            }
        },
    }
}

/// How many members of a list are not shown, if any.
pub(crate) fn more(all: usize, shown: usize) -> Markup {
    let left = all.saturating_sub(shown);
    html! {
        @if left > 0 {
            li.own.cut { (both(html! { "and " (left) " more, in the manifest" }, html! { "ほか " (left) " 件（マニフェストに記載）" })) }
        }
    }
}

/// A text with nothing hidden in it, of at most this many characters.
fn seen(text: &str, at_most: usize) -> Markup {
    let all = text.chars().count();
    html! {
        @for piece in pieces(text).take(at_most) {
            @match piece {
                Piece::Plain(character) => (character),
                Piece::Hidden(character) => span.hidden { (name(character)) },
            }
        }
        @if all > at_most {
            span.own.cut {
                " … "
                (both(
                    html! { "(" (at_most) " of " (all) " characters; all of them are in the manifest)" },
                    html! { "（全 " (all) " 文字中 " (at_most) " 文字。全文はマニフェストに記載）" },
                ))
            }
        }
    }
}

/// A short text for places without elements: a picture's text, an attribute.
pub(crate) fn plain(text: &str, at_most: usize) -> String {
    let mut shown: String = pieces(text)
        .take(at_most)
        .map(|piece| match piece {
            Piece::Plain(character) => character.to_string(),
            Piece::Hidden(character) => format!("[{}]", name(character)),
        })
        .collect();
    if text.chars().nth(at_most).is_some() {
        shown.push('…');
    }
    shown
}

enum Piece {
    Plain(char),
    Hidden(char),
}

fn pieces(text: &str) -> impl Iterator<Item = Piece> {
    let mut piled = 0;
    text.chars().map(move |character| {
        piled = if is_combining(character) { piled + 1 } else { 0 };
        if is_hidden(character) || piled > 2 { Piece::Hidden(character) } else { Piece::Plain(character) }
    })
}

fn name(character: char) -> String {
    format!("U+{:04X}", u32::from(character))
}

/// What a reader would not see, or what changes how the rest looks: controls, bidirectional controls (UAX #9),
/// default-ignorable and private-use code points, fillers, and spaces that are not a space.
fn is_hidden(character: char) -> bool {
    let code = u32::from(character);
    character.is_control()
        || character.is_whitespace() && character != ' ' && character != '\u{3000}'
        || matches!(code,
            0xAD | 0x34F | 0x61C | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F
            | 0x2028..=0x202E | 0x2060..=0x206F | 0x2800 | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0
            | 0xFFF0..=0xFFFC | 0x1BCA0..=0x1BCA3 | 0x1D173..=0x1D17A
            | 0xE000..=0xF8FF | 0xFDD0..=0xFDEF | 0xE0000..=0x10FFFF)
        || code & 0xFFFE == 0xFFFE
}

/// Marks that combine with the character before them: more than two in a row tower into the lines above.
fn is_combining(character: char) -> bool {
    matches!(u32::from(character),
        0x300..=0x36F | 0x483..=0x489 | 0x591..=0x5BD | 0x610..=0x61A | 0x64B..=0x65F | 0x6D6..=0x6DC | 0xE31
        | 0xE34..=0xE3A | 0xE47..=0xE4E | 0xEB1 | 0xEB4..=0xEBC | 0xEC8..=0xECD | 0xF71..=0xF84 | 0x1AB0..=0x1AFF
        | 0x1CD0..=0x1CF9 | 0x1DC0..=0x1DFF | 0x20D0..=0x20FF | 0x2DE0..=0x2DFF | 0x302A..=0x302F | 0x3099..=0x309A
        | 0xA66F..=0xA67D | 0xFE20..=0xFE2F)
}

/// Whether a text is safe in a command that people paste into a shell: it has nothing that a shell interprets.
pub(crate) fn is_harmless(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty()
        && text.len() <= 255
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(plain)
}

/// A number of bytes, as people say it and exactly.
pub(crate) fn size(bytes: u64) -> Markup {
    let exact = grouped(bytes);
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut shown = bytes as f64;
    let mut unit = None;
    for name in units {
        if shown < 1024.0 {
            break;
        }
        shown /= 1024.0;
        unit = Some(name);
    }
    html! {
        @if let Some(unit) = unit { (format!("{shown:.1} {unit}")) " " span.soft { "(" (both(html! { (exact) " bytes" }, html! { (exact) " バイト" })) ")" } }
        @else { (both(html! { (exact) " bytes" }, html! { (exact) " バイト" })) }
    }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A text in a cell of a table, with the column's name for narrow screens.
pub(crate) fn cell(label: crate::words::Words, content: impl Render) -> Markup {
    html! { td role="cell" data-en=(label.en) data-ja=(label.ja) { div { (content) } } }
}

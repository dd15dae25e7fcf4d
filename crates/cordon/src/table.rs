//! Tables for a terminal, as wide as the screen; cells may hold untrusted text.

use std::ffi::OsStr;
use std::io::IsTerminal;

use serde_json::Value;
use verdict::{Status, Verdict};

use crate::text::harmless;

/// How to print: how wide, and whether in colour.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// Columns.
    pub width: usize,
    /// Whether words have colours.
    pub colorful: bool,
}

/// The terminal's number for green.
pub const GREEN: u8 = 32;
/// The terminal's number for red.
pub const RED: u8 = 31;
const YELLOW: u8 = 33;

/// Without a terminal.
const WIDTH: usize = 140;

/// Columns up to this width are not narrowed.
const NARROW: usize = 16;

impl Screen {
    /// The screen of standard output: `COLUMNS` or the terminal give its width; `NO_COLOR` turns colours off.
    pub fn of_stdout() -> Self {
        let columns = std::env::var_os("COLUMNS").as_deref().and_then(OsStr::to_str).and_then(|c| c.parse().ok());
        let of_terminal = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        let width = columns.or_else(of_terminal).filter(|width| *width > 0).unwrap_or(WIDTH);
        let asked_not_to = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Screen { width, colorful: std::io::stdout().is_terminal() && !asked_not_to }
    }

    /// The word in the colour of its meaning: green for good, yellow for attention, red for bad.
    pub fn colored(self, word: &str) -> String {
        match color(word) {
            Some(color) => self.in_color(word, color),
            None => word.to_owned(),
        }
    }

    /// The text in a colour, on a screen that has any.
    pub fn in_color(self, text: &str, color: u8) -> String {
        if self.colorful { format!("\u{1b}[{color}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Aligned columns, as wide as their content and together no wider than the screen. The last cell of a short row takes
    /// the rest of the line. Cells are already harmless.
    pub fn table(self, header: &[&str], rows: &[Vec<String>]) -> String {
        let columns = header.len();
        let header: Vec<String> = header.iter().map(|&cell| cell.to_owned()).collect();
        let mut widths = vec![0; columns];
        for row in std::iter::once(&header).chain(rows) {
            let aligned = if row.len() == columns { &row[..] } else { &row[..row.len().saturating_sub(1)] };
            for (width, cell) in widths.iter_mut().zip(aligned) {
                *width = (*width).max(length(cell));
            }
        }
        while widths.iter().sum::<usize>() + 2 * columns > self.width {
            match widths.iter_mut().max() {
                Some(widest) if *widest > NARROW => *widest -= 1,
                _ => break,
            }
        }
        let lines = std::iter::once(&header).chain(rows).map(|row| format!("  {}", self.fitted(row, &widths)));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn fitted(self, row: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
            let overflows = index + 1 == row.len() && row.len() < widths.len();
            let taken = widths[..index].iter().sum::<usize>() + 2 * index + 3;
            let width = if overflows { self.width.saturating_sub(taken).max(NARROW) } else { *width };
            let cell = clipped(cell, width);
            line += &self.colored(&cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(length(&cell)) + 2));
        }
        line.trim_end().to_owned()
    }

    /// A long text on at most two lines of the screen: the output has all of it.
    pub fn two_lines(self, text: &str) -> String {
        clipped(text, 2 * self.width)
    }
}

/// The colour of a verdict, a step's status or an execution's; none for any other word.
fn color(word: &str) -> Option<u8> {
    if let Some(verdict) = Verdict::from_name(word) {
        return Some(match verdict {
            Verdict::Contained | Verdict::Released | Verdict::NothingToRelease => GREEN,
            Verdict::PartiallyContained
            | Verdict::PartiallyReleased
            | Verdict::NotApproved
            | Verdict::Planned
            | Verdict::NothingDone => YELLOW,
            Verdict::NotContained | Verdict::NotReleased => RED,
        });
    }
    if let Some(status) = Status::from_name(word) {
        return Some(match status {
            Status::Done => GREEN,
            Status::InProgress | Status::NotApplicable | Status::Unsupported | Status::Planned => YELLOW,
            Status::Failed => RED,
        });
    }
    match word {
        "SUCCEEDED" => Some(GREEN),
        "Open" | "RUNNING" | "PENDING_REDRIVE" => Some(YELLOW),
        "FAILED" | "TIMED_OUT" | "ABORTED" => Some(RED),
        _ => None,
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// A text, cut to this width.
pub fn clipped(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => text.chars().take(width.saturating_sub(1)).chain("…".chars()).collect(),
    }
}

/// A value in a cell, harmless. An ARN is shown without what it shares with others.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) if text.starts_with("arn:") => {
            harmless(text.splitn(6, ':').last().filter(|resource| !resource.is_empty()).unwrap_or(text))
        }
        Value::String(text) => harmless(text),
        Value::Array(list) if list.is_empty() => "-".to_owned(),
        Value::Array(list) => list.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(pairs) if pairs.is_empty() => "-".to_owned(),
        Value::Object(pairs) => {
            let shown = pairs.iter().filter(|(name, value)| *name != "Tags" && !value.is_null());
            let shown: Vec<String> = shown.map(|(name, value)| format!("{}={}", harmless(name), cell(value))).collect();
            shown.join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PLAIN: Screen = Screen { width: 60, colorful: false };

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|&cell| cell.to_owned()).collect()
    }

    #[test]
    fn columns_are_aligned_and_a_short_rows_last_cell_takes_the_rest_of_the_line() {
        let rows = [row(&["isolate-network", "Done", "eni-1"]), row(&["detach-profile", "there is no profile at all"])];
        let expected = "  STEP             STATUS  RESOURCE\n  isolate-network  Done    eni-1\n  detach-profile   there is no profile at all";
        assert_eq!(PLAIN.table(&["STEP", "STATUS", "RESOURCE"], &rows), expected);
    }

    #[test]
    fn a_table_is_no_wider_than_the_screen_and_shows_where_it_was_cut() {
        let rows = [row(&[&"a".repeat(50), &"b".repeat(50)]), row(&["short", ""]), row(&[&"c".repeat(99)])];
        let table = PLAIN.table(&["ONE", "TWO"], &rows);
        assert!(table.lines().all(|line| line.chars().count() <= 60), "{table}");
        assert_eq!(table.matches('…').count(), 3, "{table}");
    }

    #[test]
    fn words_have_a_colour_only_on_a_colourful_screen() {
        assert_eq!(PLAIN.colored("Failed"), "Failed");
        let colorful = Screen { colorful: true, ..PLAIN };
        assert_eq!(colorful.colored("Failed"), "\u{1b}[31mFailed\u{1b}[0m");
        assert_eq!(colorful.colored("i-0123abcd"), "i-0123abcd");
    }

    #[test]
    fn a_cell_has_what_tells_an_arn_from_others_lists_as_lists_and_a_dash_for_nothing() {
        assert_eq!(cell(&json!("arn:aws:iam::123456789012:instance-profile/web")), "instance-profile/web");
        assert_eq!(cell(&json!(["sg-1", "sg-2"])), "sg-1, sg-2");
        assert_eq!(cell(&json!({"Name": "web", "Port": 80, "Tags": {"a": "b"}, "Zone": null})), "Name=web, Port=80");
        for nothing in [json!(null), json!([]), json!({}), json!("")] {
            assert_eq!(cell(&nothing), "-");
        }
    }

    #[test]
    fn whatever_stands_in_a_value_changes_neither_the_screen_nor_the_rows() {
        let shown = cell(&json!({"\u{1b}[2J": ["a\nb", "gpj\u{202e}exe"]}));
        assert_eq!(shown, r"\u{1b}[2J=a\u{a}b, gpj\u{202e}exe");
        assert!(!cell(&json!("arn:aws:x:::\u{9b}31m")).contains('\u{9b}'));
    }
}

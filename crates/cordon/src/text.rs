//! Text for a terminal, untrusted text included.

use std::io::{self, Write};

use clap::ValueEnum;

/// For whom a command prints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON document.
    Json,
}

/// Prints to standard output. A closed pipe is no error; the exit code still counts.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints a document as JSON in ASCII, with a final newline.
pub fn print_json(document: &serde_json::Value) {
    print(&in_ascii(&format!("{document:#}\n")));
}

/// Letters without a glyph: the fillers of Hangul.
const BLANK_LETTERS: [char; 4] = ['\u{115f}', '\u{1160}', '\u{3164}', '\u{ffa0}'];

/// The punctuation of Cordon's own sentences.
const PUNCTUATION: &str = "…–—‘’“”→、。「」（）";

/// The text with everything escaped except letters, digits, plain ASCII and common punctuation: no control characters,
/// which could rewrite the screen, no invisible ones, and none that reverse what follows.
pub fn harmless(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        match character {
            ' '..='~' => shown.push(character),
            other if other.is_alphanumeric() && !BLANK_LETTERS.contains(&other) => shown.push(other),
            other if PUNCTUATION.contains(other) => shown.push(other),
            other => shown.extend(other.escape_unicode()),
        }
    }
    shown
}

/// The same JSON in ASCII: characters that could change a terminal's screen or reverse its text become numbers.
pub fn in_ascii(json: &str) -> String {
    let mut ascii = String::new();
    for character in json.chars() {
        match character {
            ' '..='~' | '\n' => ascii.push(character),
            other => {
                ascii.extend(other.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
            }
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_same_in_ascii() {
        let document = serde_json::json!({"報": "\u{202e}\n", "escape": "\u{1b}"});
        let ascii = in_ascii(&format!("{document:#}"));
        assert!(ascii.is_ascii() && !ascii.contains('\u{1b}'), "{ascii}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&ascii).expect("JSON"), document);
    }

    #[test]
    fn characters_that_could_change_the_screen_are_shown_as_numbers() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\n"), r"a\u{1b}[2Jb\u{d}\u{a}");
        assert_eq!(harmless("gpj\u{202e}exe.\u{200b}x\u{9b}31m"), r"gpj\u{202e}exe.\u{200b}x\u{9b}31m");
    }

    #[test]
    fn letters_of_every_language_stay_and_blank_ones_are_shown() {
        assert_eq!(harmless("報告 über-1.json… done"), "報告 über-1.json… done");
        assert_eq!(harmless("a\u{3164}b"), r"a\u{3164}b");
    }
}

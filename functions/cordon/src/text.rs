//! Texts that others chose, for a terminal.

/// The text with everything escaped that is neither a letter, a digit nor plain ASCII: no control characters, which could
/// rewrite the screen, no invisible ones, and none that turn the direction of what follows.
pub fn harmless(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        match character {
            ' '..='~' => shown.push(character),
            other if other.is_alphanumeric() => shown.push(other),
            other => shown.extend(other.escape_unicode()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_change_the_screen_is_shown_as_its_number() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\n"), r"a\u{1b}[2Jb\u{d}\u{a}");
        assert_eq!(harmless("gpj\u{202e}exe.\u{200b}x\u{9b}31m"), r"gpj\u{202e}exe.\u{200b}x\u{9b}31m");
    }

    #[test]
    fn letters_of_every_language_stay_as_they_are() {
        assert_eq!(harmless("報告 über-1.json"), "報告 über-1.json");
    }
}

//! What strangers wrote, made fit to be shown: event names, user agents and image names are whatever somebody chose.

/// At most so many characters, and none that controls a terminal or turns the reading direction.
pub(crate) fn shown(text: &str, characters: usize) -> String {
    let visible = |c: char| if c.is_control() || turns_text(c) { '\u{fffd}' } else { c };
    let cut = text.chars().nth(characters).is_some();
    text.chars().take(characters).map(visible).chain(cut.then_some('…')).collect()
}

/// Unicode's marks for direction and invisible joins, with which one text is made to look like another.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_characters_and_loses_what_controls_a_terminal() {
        assert_eq!(shown("日本語です", 3), "日本語…");
        assert_eq!(shown("a\u{1b}[31mb\u{202e}c\n", 20), "a\u{fffd}[31mb\u{fffd}c\u{fffd}");
        assert_eq!(shown("", 3), "");
    }
}

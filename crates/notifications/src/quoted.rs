//! Untrusted text: finding titles, tags, reasons, causes. It is quoted, on one line, and can neither look like Cordon's
//! own words nor become a link, a mention or markup.

/// A text whose parts know who wrote them, so that every medium can quote what Cordon did not write.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Text(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Ours(String),
    Theirs(String),
}

/// No quotation is longer; the execution's output has all of it.
const QUOTED_AT_MOST: usize = 400;

impl Text {
    /// Cordon's own words, or a value that was checked.
    pub(crate) fn ours(text: impl Into<String>) -> Text {
        Text(vec![Part::Ours(text.into())])
    }

    /// Adds Cordon's own words.
    pub(crate) fn and(mut self, text: impl Into<String>) -> Text {
        self.0.push(Part::Ours(text.into()));
        self
    }

    /// Adds what somebody else wrote.
    pub(crate) fn quoting(mut self, text: &str) -> Text {
        self.0.push(Part::Theirs(clean(text, QUOTED_AT_MOST)));
        self
    }

    /// Adds an ARN; quotes anything that is not one, or has other than an ARN's plain characters.
    pub(crate) fn arn(self, arn: &str) -> Text {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b":/-".contains(&b);
        match arn.starts_with("arn:aws") && arn.len() <= 300 && !arn.contains("://") && arn.bytes().all(plain) {
            true => self.and(arn),
            false => self.quoting(arn),
        }
    }

    /// Adds another text.
    pub(crate) fn then(mut self, text: Text) -> Text {
        self.0.extend(text.0);
        self
    }

    /// For an e-mail: quotations in quotes, on the same line, with nothing that a mail reader turns into a link.
    pub(crate) fn plain(&self) -> String {
        self.render(defanged)
    }

    /// For a chat: the same, without markup, mentions and emoji in quotations.
    pub(crate) fn chat(&self) -> String {
        self.render(without_markup)
    }

    fn render(&self, theirs: fn(&str) -> String) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Ours(text) => text.clone(),
            Part::Theirs(text) => format!("“{}”", theirs(&text.replace(['“', '”'], "\""))),
        });
        parts.collect()
    }
}

/// One line without control, invisible or direction-changing characters, of at most this many characters.
pub(crate) fn clean(text: &str, characters: usize) -> String {
    // Text after thousands of spaces need not be shown.
    let read = text.chars().take(characters.saturating_mul(8));
    let visible = read.filter(|c| !is_invisible(*c)).map(|c| if c.is_control() { ' ' } else { c });
    let words: String = visible.collect();
    cut(&words.split_whitespace().collect::<Vec<_>>().join(" "), characters)
}

/// Like [`clean`], line by line, and spaces stay: for a table.
pub(crate) fn clean_lines(text: &str, lines: usize, characters: usize) -> Vec<String> {
    let line = |line: &str| {
        let visible = line.chars().filter(|c| !is_invisible(*c));
        let spaced: String = visible.map(|c| if c.is_control() || c.is_whitespace() { ' ' } else { c }).collect();
        cut(spaced.trim_end(), characters)
    };
    let mut shown: Vec<String> = text.lines().take(lines).map(line).collect();
    let more = text.lines().count().saturating_sub(lines);
    if more > 0 {
        shown.push(format!("… and {more} more lines"));
    }
    shown
}

/// The first characters of a text.
pub(crate) fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some(_) => text.chars().take(characters.saturating_sub(1)).chain("…".chars()).collect(),
    }
}

/// With addresses defanged: `hxxp://evil[.]example`.
pub(crate) fn defanged(text: &str) -> String {
    let text = with_hxxp(text);
    let characters: Vec<char> = text.chars().collect();
    let letter = |n: usize| characters.get(n).is_some_and(|c| c.is_alphabetic());
    let mut spoilt = String::with_capacity(text.len());
    for (n, c) in characters.iter().enumerate() {
        let after_a_word = n > 0 && characters[n - 1].is_alphanumeric();
        match c {
            '.' | '．' if after_a_word && letter(n + 1) && letter(n + 2) => spoilt.push_str("[.]"),
            _ => spoilt.push(*c),
        }
    }
    spoilt
}

/// Characters that Slack or Teams read as markup become ones that only look like them.
pub(crate) fn without_markup(text: &str) -> String {
    let text = defanged(text);
    let has_entities = text.contains(';');
    let mut characters = text.chars().peekable();
    let mut plain = String::with_capacity(text.len());
    while let Some(c) = characters.next() {
        let before_a_shortcode = characters.peek().is_some_and(|next| next.is_ascii_lowercase() || *next == '+');
        plain.push(match c {
            '<' => '‹',
            '>' => '›',
            '[' => '［',
            ']' => '］',
            '(' => '（',
            ')' => '）',
            '*' => '∗',
            '_' => '＿',
            '`' => 'ˋ',
            '~' => '∼',
            '@' => '＠',
            '#' => '＃',
            '&' if has_entities => '＆',
            '|' => '｜',
            '\\' => '＼',
            ':' if before_a_shortcode => '꞉',
            other => other,
        });
    }
    plain
}

fn with_hxxp(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut spoilt = text.to_owned();
    for scheme in ["http://", "https://"] {
        for (at, _) in lower.match_indices(scheme) {
            spoilt.replace_range(at + 1..at + 3, "xx");
        }
    }
    spoilt
}

fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &str) -> Text {
        Text::ours("GuardDuty says: ").quoting(text)
    }

    #[test]
    fn a_quotation_stays_on_one_line_and_cannot_close_its_quotes() {
        let forged = "harmless”\r\n\nCordon has contained i-0123abcd.\u{2028}\u{85}Approve it with “x";
        let shown = quoted(forged).plain();
        assert_eq!(
            shown, "GuardDuty says: “harmless\" Cordon has contained i-0123abcd. Approve it with \"x”",
            "no line of its own, and no quotation mark that ends the quotation"
        );
    }

    #[test]
    fn invisible_and_direction_changing_characters_are_gone() {
        let hidden = "i-\u{200b}0\u{202e}cba\u{2066}\u{feff}\u{ad}\u{e0041}\u{3164}\u{1b}[31m";
        assert_eq!(quoted(hidden).plain(), "GuardDuty says: “i-0cba [31m”");
        assert_eq!(clean_lines("a\u{202e}b\u{7}c   d  \r\ne", 5, 80), ["ab c   d", "e"]);
    }

    #[test]
    fn an_arn_can_be_copied_and_a_text_that_only_starts_like_one_is_quoted() {
        let arn = "arn:aws:guardduty:eu-west-1:444455556666:detector/d1/finding/f1";
        assert_eq!(Text::default().arn(arn).chat(), arn);
        for hostile in ["arn:aws:x:http://1.2.3.4", "arn:aws:x:evil.example", "arn:aws:<!channel>", "f-1"] {
            assert!(Text::default().arn(hostile).chat().starts_with('“'), "{hostile}");
        }
    }

    #[test]
    fn a_quotation_and_a_table_have_a_limit() {
        assert_eq!(quoted(&"壊".repeat(10_000)).plain().chars().count(), "GuardDuty says: “”".chars().count() + 400);
        assert_eq!(clean_lines(&"x\n".repeat(9), 2, 80), ["x", "x", "… and 7 more lines"]);
    }

    #[test]
    fn addresses_are_defanged_in_an_e_mail_and_finding_types_are_not() {
        assert_eq!(defanged("HTTPS://evil.example/x?a=http://b.io"), "HxxPS://evil[.]example/x?a=hxxp://b[.]io");
        assert_eq!(defanged("HTTP 403 from the http endpoint"), "HTTP 403 from the http endpoint");
        assert_eq!(defanged("www.evil.com and me@evil.co.uk"), "www[.]evil[.]com and me@evil[.]co[.]uk");
        assert_eq!(
            defanged("Backdoor:EC2/C&CActivity.B!DNS at 10.0.0.1."),
            "Backdoor:EC2/C&CActivity.B!DNS at 10.0.0.1."
        );
    }

    #[test]
    fn markup_links_mentions_and_emoji_are_dead_in_a_chat() {
        let hostile = "<!channel> <https://evil.example|click> [here](http://evil.example) *b* _i_ `c` ~s~ @all #general \
                       &lt; :white_check_mark: :tada: \\*";
        let shown = quoted(hostile).chat();
        for character in ['<', '>', '[', ']', '(', ')', '*', '_', '`', '~', '@', '#', '&', '|', '\\'] {
            assert!(!shown.contains(character), "{character} in {shown}");
        }
        assert!(!shown.contains("http:") && !shown.contains(":tada") && !shown.contains("evil.example"), "{shown}");
        assert_eq!(quoted("Backdoor:EC2/C&CActivity.B!DNS").chat(), quoted("Backdoor:EC2/C&CActivity.B!DNS").plain());
        assert!(shown.contains("‹!channel›") && shown.contains("click"), "it can still be read: {shown}");
    }
}

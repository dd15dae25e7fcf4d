//! Points in time and lengths of time, for people.

use aws_smithy_types::date_time::{DateTime, Format};
use maud::{Markup, html};

use crate::quote::code;
use crate::words::{Language, Words, both, words};

/// Milliseconds since 1970 of a time in ISO 8601. None for anything else, and for a time that no incident has.
pub(crate) fn millis(text: &str) -> Option<i64> {
    let time = DateTime::from_str(text, Format::DateTimeWithOffset).ok()?;
    let millis = time.to_millis().ok()?;
    (0..253_402_300_800_000).contains(&millis).then_some(millis)
}

/// A time in UTC to the second; anything else is quoted as it is.
pub(crate) fn shown(text: &str) -> Markup {
    let utc = |time: i64| DateTime::from_millis(time).fmt(Format::DateTime).ok().filter(|utc| utc.len() >= 20);
    match millis(text).and_then(utc) {
        Some(utc) => html! { time datetime=(utc) { (utc[..10]) " " (utc[11..19]) " UTC" } },
        None => code(text),
    }
}

/// A length of time in both languages.
pub(crate) fn length(millis: i64) -> Markup {
    both(length_in(Language::En, millis), length_in(Language::Ja, millis))
}

/// A length of time: exact below a minute, in its two largest units above.
pub(crate) fn length_in(language: Language, millis: i64) -> String {
    let seconds = millis / 1_000;
    if millis < 60_000 {
        let exact = match millis {
            0..10_000 => format!("{:.2}", millis as f64 / 1e3),
            _ => format!("{:.1}", millis as f64 / 1e3),
        };
        return format!("{exact}{}", language.of(words(" s", " 秒")));
    }
    let (large, small, units): (i64, i64, [Words; 2]) = match seconds {
        ..3_600 => (seconds / 60, seconds % 60, [words(" min", "分"), words(" s", "秒")]),
        3_600..86_400 => (seconds / 3_600, seconds % 3_600 / 60, [words(" h", "時間"), words(" min", "分")]),
        _ => (seconds / 86_400, seconds % 86_400 / 3_600, [words(" d", "日"), words(" h", "時間")]),
    };
    let unit = |which: usize| language.of(units[which]);
    match (small, language) {
        (0, _) => format!("{large}{}", unit(0)),
        (_, Language::En) => format!("{large}{} {small}{}", unit(0), unit(1)),
        (_, Language::Ja) => format!("{large}{}{small}{}", unit(0), unit(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_exact_while_it_is_short() {
        let shown = |millis| [length_in(Language::En, millis), length_in(Language::Ja, millis)];
        assert_eq!(shown(540), ["0.54 s", "0.54 秒"]);
        assert_eq!(shown(12_340), ["12.3 s", "12.3 秒"]);
        assert_eq!(shown(125_000), ["2 min 5 s", "2分5秒"]);
        assert_eq!(shown(3_780_000), ["1 h 3 min", "1時間3分"]);
        assert_eq!(shown(86_400_000), ["1 d", "1日"]);
    }

    #[test]
    fn a_time_with_an_offset_is_shown_in_utc_and_anything_else_is_quoted() {
        assert!(shown("2026-11-21T18:15:03.211+09:00").into_string().contains("2026-11-21 09:15:03 UTC"));
        for no_time in ["", "yesterday", "2026-13-45T00:00:00Z", "9999999-01-01T00:00:00Z"] {
            assert!(shown(no_time).into_string().contains("bdi"), "{no_time}");
        }
    }
}

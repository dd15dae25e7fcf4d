//! The page's own words, in both of its languages.

use maud::{Markup, Render, html};
use verdict::{Status, Verdict, Word};

/// The same text in English and in Japanese; the page shows one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Words {
    pub en: &'static str,
    pub ja: &'static str,
}

pub(crate) const fn words(en: &'static str, ja: &'static str) -> Words {
    Words { en, ja }
}

impl Render for Words {
    fn render(&self) -> Markup {
        both(self.en, self.ja)
    }
}

/// Two versions of one text; the style sheet shows the one in the chosen language.
pub(crate) fn both(en: impl Render, ja: impl Render) -> Markup {
    html! {
        span.en lang="en" { (en) }
        span.ja lang="ja" { (ja) }
    }
}

/// One of the page's two languages, for pictures, where style cannot hide a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    En,
    Ja,
}

impl Language {
    pub fn of(self, words: Words) -> &'static str {
        match self {
            Language::En => words.en,
            Language::Ja => words.ja,
        }
    }

    pub fn tag(self) -> &'static str {
        self.of(words("en", "ja"))
    }
}

/// A shape for every colour, so that neither paper nor a colour-blind reader loses anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Good,
    Nothing,
    Moving,
    Warning,
    Bad,
    Paused,
    Unknown,
}

impl Kind {
    pub fn class(self) -> &'static str {
        match self {
            Kind::Good => "good",
            Kind::Nothing => "nothing",
            Kind::Moving => "moving",
            Kind::Warning => "warning",
            Kind::Bad => "bad",
            Kind::Paused => "paused",
            Kind::Unknown => "unknown",
        }
    }

    /// The shape in a square of 16, to be drawn with the current colour and `sign` on it.
    pub fn shape(self) -> Markup {
        html! {
            @match self {
                Kind::Good => {
                    circle cx="8" cy="8" r="7.5" {}
                    path.sign d="M4.4 8.3l2.5 2.5 4.8-5.3" {}
                }
                Kind::Nothing => {
                    circle.hollow cx="8" cy="8" r="6.7" {}
                    path.line d="M4.9 8h6.2" {}
                }
                Kind::Moving => {
                    circle.hollow cx="8" cy="8" r="6.7" {}
                    path.line d="M8 4.2V8l2.7 1.9" {}
                }
                Kind::Warning => {
                    path d="M8 .8c.4 0 .8.2 1 .6l6.5 11.9c.5.8-.1 1.9-1 1.9h-13c-.9 0-1.5-1.1-1-1.9L7 1.4c.2-.4.6-.6 1-.6z" {}
                    path.sign d="M8 5.4v4.1M8 12.2v.2" {}
                }
                Kind::Bad => {
                    path d="M4.9.5h6.2l4.4 4.4v6.2l-4.4 4.4H4.9L.5 11.1V4.9z" {}
                    path.sign d="M5.3 5.3l5.4 5.4M10.7 5.3l-5.4 5.4" {}
                }
                Kind::Paused => {
                    rect x=".5" y=".5" width="15" height="15" rx="3" {}
                    path.sign d="M5.9 4.8v6.4M10.1 4.8v6.4" {}
                }
                Kind::Unknown => {
                    path d="M8 .3L15.7 8 8 15.7.3 8z" {}
                    path.sign d="M6.2 6.3c.2-2.4 3.8-2.2 3.6 0-.1 1.2-1.8 1.3-1.8 2.7M8 11.4v.2" {}
                }
            }
        }
    }

    /// The shape beside a word that says the same.
    pub fn mark(self) -> Markup {
        html! {
            svg.(format!("mark {}", self.class())) viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" { (self.shape()) }
        }
    }

    /// The shape and the word.
    pub fn badge(self, word: impl Render) -> Markup {
        html! { span.(format!("badge {}", self.class())) { (self.mark()) (word) } }
    }
}

/// How the instance stands, in large letters.
pub(crate) struct Heading {
    pub kind: Kind,
    pub word: Words,
    pub meaning: Words,
}

/// What a verdict means. An unknown one reassures nobody.
pub(crate) fn heading(verdict: &Word<Verdict>) -> Heading {
    let (kind, word, meaning) = match verdict.known() {
        Some(Verdict::Contained) => (
            Kind::Good,
            words("Contained", "封じ込め済み"),
            words(
                "The instance is off the network, and AWS shows every step as it should be.",
                "インスタンスはネットワークから遮断され、すべてのステップがあるべき状態になっていることを AWS 上で確認しました。",
            ),
        ),
        Some(Verdict::PartiallyContained) => (
            Kind::Warning,
            words("Partly contained", "一部のみ封じ込め"),
            words(
                "The network is cut, but something else is not as it should be.",
                "ネットワークは遮断されましたが、ほかに未完了の項目があります。",
            ),
        ),
        Some(Verdict::NotContained) => (
            Kind::Bad,
            words("Not contained", "封じ込め未完了"),
            words(
                "The network is not cut, or AWS could not show that it is. Assume that the attacker is still connected.",
                "ネットワークが遮断されていないか、遮断を確認できませんでした。攻撃者がまだ接続していると考えてください。",
            ),
        ),
        Some(Verdict::NotApproved) => (
            Kind::Paused,
            words("Not approved", "未承認"),
            words(
                "A person did not approve, or another execution took over the case: nothing that disturbs the workload was \
                 done here. The instance may still be connected.",
                "承認が得られなかったか、別の実行がこのケースを引き継いだため、業務に影響する操作は行っていません。\
                 インスタンスはまだ接続されている可能性があります。",
            ),
        ),
        Some(Verdict::Released) => (
            Kind::Good,
            words("Released", "解除済み"),
            words(
                "The containment is undone: AWS shows everything that the case had changed as it was before. The evidence stays.",
                "封じ込めは解除されました。このケースで変更したものがすべて元の状態に戻っていることを AWS 上で確認しました。証拠は残ります。",
            ),
        ),
        Some(Verdict::PartiallyReleased) => (
            Kind::Warning,
            words("Partly released", "一部のみ解除"),
            words(
                "Some of it is as it was before the containment; the rest is not, or was not asked for. The instance is \
                 neither contained nor restored.",
                "一部は封じ込め前の状態に戻りましたが、残りは戻っていないか、解除の対象に指定されていません。\
                 インスタンスは封じ込められておらず、元どおりでもありません。",
            ),
        ),
        Some(Verdict::NotReleased) => (
            Kind::Bad,
            words("Not released", "解除未完了"),
            words(
                "A release was attempted, and AWS shows nothing as it was before. Treat the instance as neither contained nor restored.",
                "解除を試みましたが、元の状態に戻ったことを確認できませんでした。封じ込められているとも、元どおりとも考えないでください。",
            ),
        ),
        // A dry run, and an execution with nothing to do, seal no case.
        Some(Verdict::Planned | Verdict::NothingDone | Verdict::NothingToRelease) | None => (
            Kind::Unknown,
            words("Verdict unknown", "判定不明"),
            words(
                "The manifest has a verdict that this report does not know. Treat the instance as not contained.",
                "マニフェストの判定をこのレポートでは解釈できません。封じ込められていないものとして扱ってください。",
            ),
        ),
    };
    Heading { kind, word, meaning }
}

/// A status in words, and its shape. No words for a status that this report does not know.
pub(crate) fn status(status: &Word<Status>) -> (Kind, Option<Words>) {
    match status.known() {
        Some(Status::Done) => (Kind::Good, Some(words("Done", "完了"))),
        Some(Status::NotApplicable) => (Kind::Nothing, Some(words("Not applicable", "対象なし"))),
        Some(Status::Unsupported) => (Kind::Warning, Some(words("Unsupported", "非対応"))),
        Some(Status::InProgress) => (Kind::Moving, Some(words("In progress", "進行中"))),
        Some(Status::Planned) => (Kind::Moving, Some(words("Planned", "計画のみ"))),
        Some(Status::Failed) => (Kind::Bad, Some(words("Failed", "失敗"))),
        None => (Kind::Unknown, None),
    }
}

//! The steps on an axis of time, as a picture: one for wide screens and paper and one for phones, in each language.

use custody::Step;
use maud::{Markup, html};

use crate::quote::{plain, short};
use crate::steps::about;
use crate::time::{length_in, millis, shown};
use crate::words::{Language, both, status, words};

/// More rows than this are in the list of steps only.
const ROWS: usize = 60;

/// Up to here a linear axis shows everything; beyond it, waits of minutes and hours would squeeze the first seconds.
const LINEAR_UP_TO: i64 = 120_000;

struct Row<'a> {
    step: &'a Step,
    began: i64,
    /// None if unknown: the workflow had not left the step, or the times contradict each other.
    ended: Option<i64>,
}

/// The picture, its legend in words, and the steps that it cannot show.
pub(crate) fn timeline(steps: &[Step]) -> Markup {
    let began = |step: &Step| step.began.as_deref().and_then(millis);
    let Some(first) = steps.iter().filter_map(began).min() else {
        return html! { p { (words("No step has a time.", "時刻が記録されたステップはありません。")) } };
    };
    let mut rows: Vec<Row> = steps
        .iter()
        .filter_map(|step| {
            let began = began(step)? - first;
            let ended =
                step.ended.as_deref().and_then(millis).map(|ended| ended - first).filter(|&ended| ended >= began);
            Some(Row { step, began, ended })
        })
        .collect();
    rows.sort_by_key(|row| row.began);
    let without: Vec<&Step> = steps.iter().filter(|step| began(step).is_none()).collect();
    let left_out = rows.len().saturating_sub(ROWS);
    rows.truncate(ROWS);
    let span = rows.iter().map(|row| row.ended.unwrap_or(row.began)).max().unwrap_or_default().max(1);
    let began = steps.iter().filter_map(|step| step.began.as_deref()).find(|text| millis(text) == Some(first));
    html! {
        figure.timeline {
            @for language in [Language::En, Language::Ja] {
                @for layout in [&WIDE, &NARROW] { (picture(layout, language, &rows, span)) }
            }
            figcaption {
                (both(
                    html! { "Time since the first step began, at " (shown(began.unwrap_or_default())) ". " },
                    html! { "横軸は最初のステップの開始（" (shown(began.unwrap_or_default())) "）からの経過時間です。" },
                ))
                @if span > LINEAR_UP_TO {
                    (words(
                        "The axis is logarithmic: the first seconds get as much room as the hours after them, and equal lengths are not equal times. ",
                        "対数目盛のため、最初の数秒も後の数時間と同じ程度の幅で示します。同じ長さが同じ時間を表すわけではありません。",
                    ))
                } @else {
                    (words("The axis is linear. ", "目盛は等間隔です。"))
                }
                (words(
                    "A bar shows how long the workflow was in the step, repeated checks included.",
                    "棒の長さは、再確認の待ち時間を含め、ワークフローがそのステップにあった時間です。",
                ))
                @if left_out > 0 {
                    " " (both(
                        html! { (left_out) " more steps are in the list below only." },
                        html! { "ほか " (left_out) " ステップは下の一覧だけに示します。" },
                    ))
                }
            }
        }
        @if !without.is_empty() {
            p { (words("Steps without a recorded time:", "時刻が記録されていないステップ：")) }
            ul.untimed {
                @for step in without.iter().take(ROWS) {
                    @let (kind, word) = status(&step.status);
                    li {
                        @if let Some(about) = about(step) { (about.title) " " }
                        (short(&step.step)) " "
                        @match word { Some(word) => (kind.badge(word)), None => (kind.badge(short(step.status.as_str()))) }
                    }
                }
                (crate::quote::more(without.len(), ROWS))
            }
        }
    }
}

/// The sizes of a picture, in the units of its view box, which are pixels on the screen that it is meant for.
struct Layout {
    name: &'static str,
    width: f64,
    /// From where the bars begin, and how much room there is after them.
    left: f64,
    right: f64,
    row: f64,
    /// Where a row's bar is, from the row's top.
    bar: f64,
    thickness: f64,
    /// How wide a step's name may be.
    label: f64,
    /// How far ticks must be apart.
    ticks: f64,
    /// The base line of a row's texts, from the row's top.
    text: f64,
}

/// The names are beside the bars.
const WIDE: Layout = Layout {
    name: "wide",
    width: 920.0,
    left: 262.0,
    right: 110.0,
    row: 30.0,
    bar: 7.0,
    thickness: 15.0,
    label: 232.0,
    ticks: 62.0,
    text: 19.5,
};

/// The names are above the bars: a phone has no room beside them.
const NARROW: Layout = Layout {
    name: "narrow",
    width: 320.0,
    left: 8.0,
    right: 14.0,
    row: 43.0,
    bar: 24.0,
    thickness: 11.0,
    label: 210.0,
    ticks: 46.0,
    text: 16.0,
};

const HEAD: f64 = 48.0;

fn picture(layout: &Layout, language: Language, rows: &[Row], span: i64) -> Markup {
    let height = HEAD + layout.row * rows.len() as f64 + 6.0;
    let id = format!("timeline-{}-{}", layout.name, language.tag());
    let plot = layout.width - layout.left - layout.right;
    let x = |time: i64| layout.left + plot * position(time, span);
    let (logarithmic, linear) = (
        words("time since the first step began, logarithmic scale", "最初のステップからの経過時間（対数目盛）"),
        words("time since the first step began, linear scale", "最初のステップからの経過時間（等間隔目盛）"),
    );
    let axis = language.of(if span > LINEAR_UP_TO { logarithmic } else { linear });
    html! {
        svg.(format!("picture {} {}", layout.name, language.tag())) lang=(language.tag()) role="img"
            viewBox=(format!("0 0 {} {}", layout.width, height)) width=(layout.width) height=(height)
            aria-labelledby=(format!("{id}-title {id}-text")) {
            title id=(format!("{id}-title")) { (language.of(words("Timeline of the steps", "ステップの時系列"))) }
            desc id=(format!("{id}-text")) {
                @for row in rows { (spoken(language, row)) " " }
            }
            text.axis x=(layout.left) y="14" { (axis) }
            @for (tick, label) in ticks(layout, language, span) {
                @let at = x(tick);
                line.grid x1=(px(at)) x2=(px(at)) y1=(HEAD - 6.0) y2=(height) {}
                text.tick x=(px(at)) y=(HEAD - 12.0) text-anchor=(anchor(layout, at)) { (label) }
            }
            @for (number, row) in rows.iter().enumerate() {
                (bar(layout, language, row, HEAD + layout.row * number as f64, &x))
            }
        }
    }
}

fn bar(layout: &Layout, language: Language, row: &Row, top: f64, x: &impl Fn(i64) -> f64) -> Markup {
    let (kind, _) = status(&row.step.status);
    let (from, to) = (x(row.began), x(row.ended.unwrap_or(row.began)));
    let width = (to - from).max(4.0);
    let title = title(language, row.step);
    let beside = layout.left > layout.label;
    // What the step took, after its bar or, where names are above the bars, at the end of the name's line.
    let length = match row.ended {
        Some(ended) => length_in(language, ended - row.began),
        None => language.of(words("no end", "終了記録なし")).to_owned(),
    };
    let (length_x, length_anchor) = if beside { (from + width + 8.0, "start") } else { (layout.width - 2.0, "end") };
    html! {
        g.(format!("row {}", kind.class())) {
            title { (spoken(language, row)) }
            svg.mark x="2" y=(px(top + layout.text - 12.5)) width="15" height="15" viewBox="0 0 16 16" { (kind.shape()) }
            // A nested picture cuts off what a stranger's wide letters would put over the bars.
            svg x="23" y=(px(top)) width=(layout.label) height=(px(layout.row.min(28.0))) {
                text.name.quoted[about(row.step).is_none()] x="0" y=(px(layout.text)) { (title) }
            }
            rect.track x=(px(layout.left)) y=(px(top + layout.bar)) width=(px(layout.width - layout.left - layout.right)) height=(layout.thickness) rx="3" {}
            rect.bar x=(px(from)) y=(px(top + layout.bar)) width=(px(width)) height=(layout.thickness) rx=(if width < 8.0 { "1.5" } else { "3" }) {}
            @if row.ended.is_none() {
                line.open x1=(px(from + width)) x2=(px(layout.width - layout.right)) y1=(px(top + layout.bar + layout.thickness / 2.0)) y2=(px(top + layout.bar + layout.thickness / 2.0)) {}
            }
            text.length x=(px(length_x)) y=(px(top + layout.text)) text-anchor=(length_anchor) { (length) }
        }
    }
}

/// Where a time is on the axis, from 0 to 1.
fn position(time: i64, span: i64) -> f64 {
    let (time, span_) = (time.clamp(0, span) as f64, span as f64);
    if span > LINEAR_UP_TO { (time / 1e3).ln_1p() / (span_ / 1e3).ln_1p() } else { time / span_ }
}

/// Round times on the axis, as many as there is room for.
fn ticks(layout: &Layout, language: Language, span: i64) -> Vec<(i64, String)> {
    const SECOND: i64 = 1_000;
    const HOUR: i64 = 3_600 * SECOND;
    const DAY: i64 = 24 * HOUR;
    let plot = layout.width - layout.left - layout.right;
    let times: Vec<i64> = if span > LINEAR_UP_TO {
        let minutes = [60, 300, 900].map(|seconds| seconds * SECOND);
        let days = [1, 3, 10, 30, 100, 365, 1_000, 3_650].map(|days| days * DAY);
        [0, 1, 3, 10, 30]
            .map(|s| s * SECOND)
            .into_iter()
            .chain(minutes)
            .chain([1, 3, 8].map(|h| h * HOUR))
            .chain(days)
            .collect()
    } else {
        let steps = [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000];
        let wide_enough = |step: &i64| plot * *step as f64 / span as f64 >= layout.ticks;
        let step = steps.into_iter().find(wide_enough).unwrap_or(60_000);
        (0..).map(|n| n * step).take_while(|time| *time <= span).collect()
    };
    let mut last = f64::NEG_INFINITY;
    let apart = |time: &i64| {
        let at = plot * position(*time, span);
        let enough = *time <= span && at - last >= layout.ticks;
        if enough {
            last = at;
        }
        enough
    };
    times.into_iter().filter(apart).map(|time| (time, tick(language, time))).collect()
}

/// A tick's label: shorter than a length of time, since it is round.
fn tick(language: Language, time: i64) -> String {
    match time {
        0 => "0".to_owned(),
        _ if time < 60_000 => {
            let seconds = time as f64 / 1e3;
            format!("{seconds}{}", language.of(words(" s", " 秒")))
        }
        _ => length_in(language, time),
    }
}

/// The first and the last tick stay inside of the picture.
fn anchor(layout: &Layout, at: f64) -> &'static str {
    match at {
        _ if at < layout.left + 14.0 => "start",
        _ if at > layout.width - 24.0 => "end",
        _ => "middle",
    }
}

fn title(language: Language, step: &Step) -> String {
    match about(step) {
        Some(about) => language.of(about.title).to_owned(),
        None => plain(&step.step, 28),
    }
}

/// A row for readers who do not see it.
fn spoken(language: Language, row: &Row) -> String {
    let (_, word) = status(&row.step.status);
    let word = word.map_or_else(|| plain(row.step.status.as_str(), 40), |word| language.of(word).to_owned());
    let from = length_in(language, row.began);
    let title = title(language, row.step);
    match (row.ended.map(|ended| length_in(language, ended)), language) {
        (Some(to), Language::En) => format!("{title}: {word}, from {from} to {to}."),
        (Some(to), Language::Ja) => format!("{title}：{word}、{from}から{to}まで。"),
        (None, Language::En) => format!("{title}: {word}, from {from}, no end recorded."),
        (None, Language::Ja) => format!("{title}：{word}、{from}から（終了の記録なし）。"),
    }
}

/// A coordinate: tenths of a pixel are enough.
fn px(number: f64) -> String {
    format!("{number:.1}")
}

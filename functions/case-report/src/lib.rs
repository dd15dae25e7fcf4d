//! The report of a case as one page of HTML.

use maud::{DOCTYPE, html};

/// The page: the verdict and the evidence, every text escaped.
pub fn html(manifest: &custody::Manifest) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { "Case " (manifest.case_id) } }
            body {
                h1 { (manifest.instance_id) ": " (manifest.verdict) }
                ul { @for item in &manifest.evidence { li { (item.name) " " (item.sha256.as_deref().unwrap_or("-")) } } }
            }
        }
    };
    page.into_string()
}

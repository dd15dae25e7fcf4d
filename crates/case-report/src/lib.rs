//! The report of a case as one page of HTML, for people: in English and in Japanese, on a phone, on a desk and on paper.
//!
//! The page is self-contained: it has no script and no reference to anything outside, and its Content-Security-Policy
//! allows only its own style sheet, by hash. It says what the manifest says and adds what to do; where the two differ, the
//! manifest counts, because that is what is signed.
//!
//! Tags, names, reasons and facts may be an attacker's words: see `quote.rs`.

mod evidence;
mod page;
mod quote;
mod release;
mod risks;
mod steps;
mod time;
mod timeline;
mod words;

pub use page::html;

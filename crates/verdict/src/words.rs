//! The words for how an instance or an execution ended, and what each of them means to a reader.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Status;

/// How an instance stands, from worst to best: of several, the least is that of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verdict {
    /// The network is not cut, or could not be read.
    NotContained,
    /// A release: nothing is known to be as it was before.
    NotReleased,
    /// The network is cut; something else is open.
    PartiallyContained,
    /// A release: something is as it was before; something is not, or was not asked for.
    PartiallyReleased,
    /// A person refused, or another execution took the case over: no disturbing step ran.
    NotApproved,
    /// A dry run.
    Planned,
    /// Every step reads back as done, or has nothing to do.
    Contained,
    /// A release: everything that the case changed reads back as it was before, except what stays on purpose.
    Released,
    /// No instance had to be contained, or none was allowed to be.
    NothingDone,
    /// A release: no instance had anything to release.
    NothingToRelease,
}

impl Verdict {
    /// All of them, from worst to best.
    pub const ALL: [Verdict; 10] = [
        Verdict::NotContained,
        Verdict::NotReleased,
        Verdict::PartiallyContained,
        Verdict::PartiallyReleased,
        Verdict::NotApproved,
        Verdict::Planned,
        Verdict::Contained,
        Verdict::Released,
        Verdict::NothingDone,
        Verdict::NothingToRelease,
    ];

    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::NotContained => "NotContained",
            Verdict::NotReleased => "NotReleased",
            Verdict::PartiallyContained => "PartiallyContained",
            Verdict::PartiallyReleased => "PartiallyReleased",
            Verdict::NotApproved => "NotApproved",
            Verdict::Planned => "Planned",
            Verdict::Contained => "Contained",
            Verdict::Released => "Released",
            Verdict::NothingDone => "NothingDone",
            Verdict::NothingToRelease => "NothingToRelease",
        }
    }

    /// The verdict by its word.
    pub fn from_name(name: &str) -> Option<Verdict> {
        Verdict::ALL.into_iter().find(|verdict| verdict.name() == name)
    }

    /// The verdict when something turns out to be open after it was found: what was whole is so in part.
    ///
    /// The rule is here and nowhere else. [`InstanceReport::leave_open`](crate::InstanceReport::leave_open) applies it.
    #[must_use]
    pub const fn incomplete(self) -> Verdict {
        match self {
            Verdict::Contained => Verdict::PartiallyContained,
            Verdict::Released => Verdict::PartiallyReleased,
            other => other,
        }
    }

    /// Whether the network is cut.
    pub const fn is_isolated(self) -> bool {
        matches!(self, Verdict::Contained | Verdict::PartiallyContained)
    }

    /// Whether the instance ended as requested, which includes having nothing to do.
    pub const fn is_as_asked(self) -> bool {
        match self {
            Verdict::Contained
            | Verdict::Released
            | Verdict::Planned
            | Verdict::NothingDone
            | Verdict::NothingToRelease => true,
            Verdict::NotContained
            | Verdict::NotReleased
            | Verdict::PartiallyContained
            | Verdict::PartiallyReleased
            | Verdict::NotApproved => false,
        }
    }

    /// Whether an execution of this workflow can end so.
    pub const fn is_of(self, workflow: Workflow) -> bool {
        match self {
            Verdict::Planned => true,
            Verdict::NotContained
            | Verdict::PartiallyContained
            | Verdict::NotApproved
            | Verdict::Contained
            | Verdict::NothingDone => matches!(workflow, Workflow::Contain),
            Verdict::NotReleased | Verdict::PartiallyReleased | Verdict::Released | Verdict::NothingToRelease => {
                matches!(workflow, Workflow::Release)
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl AsRef<str> for Verdict {
    fn as_ref(&self) -> &str {
        self.name()
    }
}

/// Which of the two state machines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Workflow {
    /// `contain.asl.json`.
    #[default]
    Contain,
    /// `release.asl.json`.
    Release,
}

impl Workflow {
    /// The verdict on an instance of which nothing good is known.
    pub const fn worst(self) -> Verdict {
        match self {
            Workflow::Contain => Verdict::NotContained,
            Workflow::Release => Verdict::NotReleased,
        }
    }

    /// The verdict where nothing had to be done.
    pub const fn nothing(self) -> Verdict {
        match self {
            Workflow::Contain => Verdict::NothingDone,
            Workflow::Release => Verdict::NothingToRelease,
        }
    }

    /// Whether an execution may succeed with such an instance.
    pub const fn accepts(self, verdict: Verdict, dry_run: bool) -> bool {
        let wanted = match verdict {
            Verdict::Planned => dry_run,
            Verdict::Contained | Verdict::NotApproved | Verdict::Released | Verdict::PartiallyReleased => !dry_run,
            Verdict::NothingDone | Verdict::NothingToRelease => true,
            Verdict::NotContained | Verdict::NotReleased | Verdict::PartiallyContained => false,
        };
        wanted && verdict.is_of(self)
    }

    /// The verdict as this workflow takes it: one that nobody knows, or that is another workflow's, is as bad as the worst.
    pub fn read(self, verdict: &Word<Verdict>) -> Verdict {
        verdict.known().filter(|verdict| verdict.is_of(self)).unwrap_or(self.worst())
    }

    /// The verdict on an execution, and whether it may succeed: the worst of its instances' verdicts. No instance at all
    /// is no success, and neither is a verdict that nobody knows.
    pub fn conclude<'a>(self, verdicts: impl IntoIterator<Item = &'a Word<Verdict>>, dry_run: bool) -> (Verdict, bool) {
        let mut worst = None;
        let mut all_accepted = true;
        for verdict in verdicts {
            let verdict = self.read(verdict);
            all_accepted &= self.accepts(verdict, dry_run);
            worst = Some(worst.map_or(verdict, |worst: Verdict| worst.min(verdict)));
        }
        match worst {
            Some(worst) => (worst, all_accepted),
            None => (self.worst(), false),
        }
    }
}

/// A word, or one that this version does not know: a later version's, or a forger's. An unknown one is kept as it is, so
/// that a reader sees it, and never counts as a good one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Word<T> {
    /// One of this version's.
    Known(T),
    /// Any other.
    Unknown(String),
}

impl<T: Copy> Word<T> {
    /// The word, if it is one of this version's.
    pub fn known(&self) -> Option<T> {
        match self {
            Word::Known(word) => Some(*word),
            Word::Unknown(_) => None,
        }
    }
}

impl<T: AsRef<str>> Word<T> {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        match self {
            Word::Known(word) => word.as_ref(),
            Word::Unknown(text) => text,
        }
    }
}

impl Word<Verdict> {
    /// [`Verdict::incomplete`]; an unknown one stays.
    #[must_use]
    pub fn incomplete(self) -> Self {
        match self {
            Word::Known(verdict) => Word::Known(verdict.incomplete()),
            unknown => unknown,
        }
    }
}

impl Word<Status> {
    /// [`Status::is_good`]; an unknown one is not.
    pub fn is_good(&self) -> bool {
        self.known().is_some_and(Status::is_good)
    }
}

impl<T> Default for Word<T> {
    fn default() -> Self {
        Word::Unknown(String::new())
    }
}

impl<T> From<T> for Word<T> {
    fn from(word: T) -> Self {
        Word::Known(word)
    }
}

impl From<&str> for Word<Verdict> {
    fn from(text: &str) -> Self {
        Verdict::from_name(text).map_or_else(|| Word::Unknown(text.to_owned()), Word::Known)
    }
}

impl From<&str> for Word<Status> {
    fn from(text: &str) -> Self {
        Status::from_name(text).map_or_else(|| Word::Unknown(text.to_owned()), Word::Known)
    }
}

impl<T: PartialEq> PartialEq<T> for Word<T> {
    fn eq(&self, other: &T) -> bool {
        matches!(self, Word::Known(word) if word == other)
    }
}

impl<T: AsRef<str>> fmt::Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn words(names: &[&str]) -> Vec<Word<Verdict>> {
        names.iter().map(|name| serde_json::from_value(json!(name)).expect("a word")).collect()
    }

    fn concluded(workflow: Workflow, dry_run: bool, names: &[&str]) -> (&'static str, bool) {
        let (verdict, succeeded) = workflow.conclude(&words(names), dry_run);
        (verdict.name(), succeeded)
    }

    #[test]
    fn every_verdict_is_in_the_list_in_order_by_its_own_name_and_in_the_schema() {
        assert!(Verdict::ALL.is_sorted());
        for (place, verdict) in Verdict::ALL.into_iter().enumerate() {
            assert_eq!((verdict as usize, json!(verdict)), (place, json!(verdict.name())));
        }
        let schema: Value =
            serde_json::from_str(include_str!("../../../events/output.schema.json")).expect("a JSON document");
        let documented = schema["$defs"]["Verdict"]["oneOf"].as_array().expect("a list");
        let documented: Vec<&str> = documented.iter().filter_map(|one| one["const"].as_str()).collect();
        assert_eq!(documented, Verdict::ALL.map(Verdict::name), "events/output.schema.json");
    }

    #[test]
    fn only_a_whole_verdict_becomes_a_partial_one() {
        for verdict in Verdict::ALL {
            let expected = match verdict {
                Verdict::Contained => Verdict::PartiallyContained,
                Verdict::Released => Verdict::PartiallyReleased,
                other => other,
            };
            assert_eq!(verdict.incomplete(), expected);
        }
        assert_eq!(words(&["Fine"])[0].clone().incomplete().as_str(), "Fine");
    }

    #[test]
    fn the_worst_verdict_is_that_of_all_and_one_bad_instance_fails_the_execution() {
        let contain = |names: &[&str]| concluded(Workflow::Contain, false, names);
        assert_eq!(contain(&["Contained", "PartiallyContained"]), ("PartiallyContained", false));
        assert_eq!(contain(&["Contained", "NotApproved", "NothingDone"]), ("NotApproved", true));
        assert_eq!(contain(&["NothingDone", "Contained"]), ("Contained", true));
        let release = |names: &[&str]| concluded(Workflow::Release, false, names);
        assert_eq!(release(&["Released", "PartiallyReleased"]), ("PartiallyReleased", true));
        assert_eq!(release(&["Released", "NotReleased"]), ("NotReleased", false));
    }

    #[test]
    fn no_instance_an_unknown_verdict_and_another_workflows_verdict_are_no_success() {
        for bad in [&[][..], &["Fine"], &["Contained", ""], &["Contained", "Released"]] {
            assert_eq!(concluded(Workflow::Contain, false, bad), ("NotContained", false), "{bad:?}");
        }
        assert_eq!(concluded(Workflow::Release, false, &["Contained"]), ("NotReleased", false));
    }

    #[test]
    fn a_plan_is_the_success_of_a_dry_run_and_of_nothing_else() {
        for workflow in [Workflow::Contain, Workflow::Release] {
            assert_eq!(concluded(workflow, true, &["Planned"]), ("Planned", true));
            assert_eq!(concluded(workflow, false, &["Planned"]), ("Planned", false));
        }
        assert_eq!(concluded(Workflow::Contain, true, &["Contained"]), ("Contained", false));
    }

    #[test]
    fn an_unknown_word_is_kept_and_equals_none() {
        let word = words(&["ContainedReally"]).remove(0);
        assert_eq!((json!(word), word.known(), word == Verdict::Contained), (json!("ContainedReally"), None, false));
        assert_eq!(format!("{word:<16}|{:<5}|", Word::from(Status::Done)), "ContainedReally |Done |");
    }
}

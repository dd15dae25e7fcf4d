//! The loop towards containment: read, journal what is about to change, write, read back.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::run::{Direction, Run, planned};
use crate::step::{diff, json};
use crate::{
    Error, First, Found, Goal, Irreversible, Journal, Journaled, Key, OnDrift, Outcome, Result, Reversible, State,
    Step, Target, Writes,
};

/// What a run starts from: AWS, and what the journal holds of the step.
#[derive(Debug)]
pub struct Start<S: Step> {
    /// AWS as it was read.
    pub found: Found<S::Value, S::Facts>,
    /// The step's part of the journal.
    pub journaled: Journaled,
    /// What the reader of the outcome must know that the step itself cannot say.
    pub residual_risk: Vec<String>,
}

/// Reads AWS and the journal at the same time. Changes nothing.
pub async fn start<S: Step>(step: &S, target: &Target, journal: &impl Journal) -> Result<Start<S>> {
    let (found, journaled) = futures::try_join!(step.read(target), journal.read(target, S::NAME))?;
    Ok(Start { found, journaled, residual_risk: Vec::new() })
}

/// Runs a step that no release undoes: reads, journals what it is about to change, writes, and reads back until AWS shows
/// the goal.
///
/// Reads and changes what the step does, and the case's journal. `Done` means that AWS was read and is as it should be.
/// Errors: a call that may succeed later (`Throttled`, `Unavailable`) comes back by that name for the workflow to retry;
/// [`Error::NotContained`] carries the outcome of a step that AWS let change only in part, or not at all.
pub async fn converge<S: Irreversible>(step: &S, target: &Target, journal: &impl Journal) -> Result<Outcome> {
    run(step, target, journal, start(step, target, journal).await?, OnDrift::RestoreFound).await
}

/// Runs a step that can be released: like [`converge`], and the journal keeps what its release will need.
pub async fn converge_reversibly<S: Reversible>(step: &S, target: &Target, journal: &impl Journal) -> Result<Outcome> {
    converge_from(step, target, journal, start(step, target, journal).await?).await
}

/// [`converge_reversibly`] from where it starts, for a step that has to do something between its read and its write.
pub async fn converge_from<S: Reversible>(
    step: &S,
    target: &Target,
    journal: &impl Journal,
    start: Start<S>,
) -> Result<Outcome> {
    run(step, target, journal, start, S::ON_DRIFT).await
}

/// Reads a step's state and says how it stands, without changing anything: what the verifier asks.
pub async fn inspect<S: Step>(step: &S, target: &Target, journal: &impl Journal) -> Result<Outcome> {
    let Start { found, journaled, .. } = start(step, target, journal).await?;
    let goal = step.contained(target, &found, &journaled);
    let run = Run { step, target, direction: Containment(journaled), residual_risk: Vec::new() };
    run.conclude(&found.state, &found.state, goal, None)
}

/// Journals what a step would change, and its baseline, ahead of its first run. Once the step has run, it journals by
/// itself.
pub async fn journal_ahead<S: Reversible>(
    step: &S,
    target: &Target,
    found: &Found<S::Value, S::Facts>,
    journal: &impl Journal,
) -> Result<()> {
    let nothing = Journaled::default();
    let goal = step.contained(target, found, &nothing);
    let new = to_journal(&found.state, &diff(&found.state, &goal.state), &nothing, S::ON_DRIFT)?;
    if !new.is_empty() {
        journal.keep_ahead(target, S::NAME, &new).await?;
    }
    Ok(())
}

async fn run<S: Step>(
    step: &S,
    target: &Target,
    journal: &impl Journal,
    start: Start<S>,
    on_drift: OnDrift,
) -> Result<Outcome> {
    let Start { found, journaled, residual_risk } = start;
    let goal = step.contained(target, &found, &journaled);
    if target.dry_run {
        return Ok(planned::<S>(&found.state, goal));
    }
    let mut run = Run { step, target, direction: Containment(journaled), residual_risk };
    // What AWS has accepted already was journaled by the run that asked for it.
    let changing = match run.is_under_way(&found.state, &goal.state) {
        true => BTreeSet::new(),
        false => diff(&found.state, &goal.state),
    };
    let new = to_journal(&found.state, &changing, &run.direction.0, on_drift)?;
    if !new.is_empty() {
        run.direction.0 = journal.keep(target, S::NAME, &new).await?;
    }
    run.carry_out(found, goal).await
}

/// What the journal still lacks before these keys are changed: their first values, and on the step's first run its
/// baseline, where a release needs one.
fn to_journal<V: Serialize>(
    found: &State<V>,
    changing: &BTreeSet<Key>,
    journaled: &Journaled,
    on_drift: OnDrift,
) -> Result<Journaled> {
    let values = |keys: &mut dyn Iterator<Item = &Key>| -> Result<First> {
        keys.map(|key| Ok((key.clone(), json(found.get(key))?))).collect()
    };
    let mut first = values(&mut changing.iter().filter(|key| !journaled.first.contains_key(key)))?;
    let Some(baseline) = &journaled.baseline else {
        let baseline = (on_drift != OnDrift::RestoreFound).then(|| values(&mut found.keys())).transpose()?;
        return Ok(Journaled { first, baseline });
    };
    for (key, value) in &mut first {
        match baseline.get(key) {
            Some(before) => value.clone_from(before),
            None if on_drift == OnDrift::Discard => *value = serde_json::Value::Null,
            None => {}
        }
    }
    Ok(first.into())
}

/// Towards containment; with what the journal holds.
pub(crate) struct Containment(pub Journaled);

impl<S: Step> Direction<S> for Containment {
    const ALREADY: &'static str = "as it should be; nothing was changed by this run";

    fn first(&self) -> &First {
        &self.0.first
    }

    fn goal(&self, step: &S, target: &Target, found: &Found<S::Value, S::Facts>) -> Goal<S::Value> {
        step.contained(target, found, &self.0)
    }

    fn is_under_way(&self, step: &S, now: &S::Value, _: Option<&S::Value>) -> bool {
        step.accepted(now)
    }

    async fn write(
        &self,
        step: &S,
        target: &Target,
        found: &Found<S::Value, S::Facts>,
        goal: &State<S::Value>,
    ) -> Writes {
        step.write(target, found, goal).await
    }

    async fn read(&self, step: &S, target: &Target) -> Result<Found<S::Value, S::Facts>> {
        step.read(target).await
    }

    fn missed(outcome: Outcome) -> Error {
        Error::NotContained(Box::new(outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryJournal, Status};
    use serde_json::Value;
    use std::sync::Mutex;
    use std::time::Duration;

    /// A lamp that containment switches off. `lag` reads show the old light after a write, as EC2 does.
    #[derive(Default)]
    struct Lamp {
        lit: Mutex<String>,
        lag: Mutex<Vec<String>>,
        stuck: bool,
        denied: bool,
        writes: Mutex<u32>,
        settles_within: Duration,
    }

    impl Lamp {
        fn new(light: &str) -> Self {
            Lamp { lit: Mutex::new(light.into()), ..Lamp::default() }
        }

        fn writes(&self) -> u32 {
            *self.writes.lock().expect("lock")
        }
    }

    fn light() -> Key {
        Key::new("lamp", "Light")
    }

    impl Step for Lamp {
        type Value = String;
        type Facts = ();
        const NAME: &'static str = "switch-off";

        async fn read(&self, _: &Target) -> Result<Found<String, ()>> {
            let shown = self.lag.lock().expect("lock").pop().unwrap_or_else(|| self.lit.lock().expect("lock").clone());
            Ok(Found { state: [(light(), shown)].into(), facts: () })
        }

        fn contained(&self, _: &Target, found: &Found<String, ()>, _: &Journaled) -> Goal<String> {
            Goal::new(found.state.keys().map(|key| (key.clone(), "off".to_owned())).collect())
        }

        fn accepted(&self, light: &String) -> bool {
            light == "dimming"
        }

        async fn write(&self, _: &Target, found: &Found<String, ()>, goal: &State<String>) -> Writes {
            *self.writes.lock().expect("lock") += 1;
            let mut writes = Writes { settles_within: self.settles_within, ..Writes::default() };
            if self.denied {
                writes.note::<()>(Err(Error::NotFound("no such lamp".into())));
            } else if !self.stuck {
                assert!(found.state.contains_key(&light()));
                *self.lit.lock().expect("lock") = goal[&light()].clone();
            }
            writes
        }
    }

    impl Irreversible for Lamp {}

    fn target() -> Target {
        Target::example()
    }

    async fn first(journal: &MemoryJournal) -> First {
        journal.read(&target(), Lamp::NAME).await.expect("journal").first
    }

    #[tokio::test]
    async fn a_lit_lamp_is_switched_off_and_the_journal_has_the_light_it_had() {
        let (lamp, journal) = (Lamp::new("lit"), MemoryJournal::default());
        let outcome = converge(&lamp, &target(), &journal).await.expect("converges");
        assert_eq!(outcome.status, Status::Done);
        assert_eq!((&outcome.changes[0].before, &outcome.changes[0].after), (&"lit".into(), &"off".into()));
        assert_eq!(first(&journal).await[&light()], "lit");
    }

    #[tokio::test]
    async fn a_second_run_writes_nothing_and_still_shows_the_cases_change() {
        let (lamp, journal) = (Lamp::new("lit"), MemoryJournal::default());
        let once = converge(&lamp, &target(), &journal).await.expect("converges");
        let twice = converge(&lamp, &target(), &journal).await.expect("converges");
        assert_eq!(lamp.writes(), 1);
        assert_eq!((twice.status, &twice.changes), (Status::Done, &once.changes));
        assert!(twice.reason.expect("a reason").contains("nothing was changed by this run"));
    }

    #[tokio::test]
    async fn a_retry_keeps_the_first_value_and_not_the_one_that_the_first_try_left() {
        let journal = MemoryJournal::of(Lamp::NAME, First::from([(light(), "bright".into())]));
        let outcome = converge(&Lamp::new("lit"), &target(), &journal).await.expect("converges");
        assert_eq!(outcome.changes[0].before, "bright");
    }

    #[tokio::test]
    async fn what_was_noticed_before_the_write_is_in_the_outcome_even_if_the_write_is_refused() {
        let (lamp, journal) = (Lamp { denied: true, ..Lamp::new("lit") }, MemoryJournal::default());
        let mut start = start(&lamp, &target(), &journal).await.expect("read");
        start.residual_risk.push("the window could not be read".to_owned());
        let outcome = run(&lamp, &target(), &journal, start, OnDrift::RestoreFound).await;
        let Err(Error::NotContained(outcome)) = outcome else { panic!("refused") };
        assert_eq!(outcome.residual_risk, ["the window could not be read"]);
    }

    #[tokio::test]
    async fn a_dry_run_shows_the_plan_and_touches_neither_lamp_nor_journal() {
        let (lamp, journal) = (Lamp::new("lit"), MemoryJournal::default());
        let outcome = converge(&lamp, &Target { dry_run: true, ..target() }, &journal).await.expect("plans");
        assert_eq!((outcome.status, outcome.changes.len()), (Status::Planned, 1));
        assert_eq!(lamp.writes(), 0);
        assert!(first(&journal).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_shows_late_is_waited_for() {
        let (lamp, journal) = (Lamp::new("lit"), MemoryJournal::default());
        *lamp.lag.lock().expect("lock") = vec!["lit".into(); 4];
        assert_eq!(converge(&lamp, &target(), &journal).await.expect("converges").status, Status::Done);
    }

    #[tokio::test(start_paused = true)]
    async fn an_accepted_change_is_waited_for_as_long_as_the_write_says_it_is_worth() {
        for (seconds, status) in [(0, Status::InProgress), (15, Status::Done)] {
            let lamp = Lamp { settles_within: Duration::from_secs(seconds), ..Lamp::new("lit") };
            *lamp.lag.lock().expect("lock") = [vec!["dimming".into(); 4], vec!["lit".into()]].concat();
            let outcome = converge(&lamp, &target(), &MemoryJournal::default()).await.expect("accepted");
            assert_eq!(outcome.status, status, "{seconds} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_returns_success_and_changes_nothing_is_a_failure() {
        let (lamp, journal) = (Lamp { stuck: true, ..Lamp::new("lit") }, MemoryJournal::default());
        let error = converge(&lamp, &target(), &journal).await.expect_err("not contained");
        assert_eq!(error.name(), "NotContained");
        assert!(error.to_string().contains(r#"Light of lamp is \"lit\", wanted \"off\""#), "{error}");
    }

    #[tokio::test]
    async fn a_refused_write_says_what_is_left_and_what_aws_said() {
        let (lamp, journal) = (Lamp { denied: true, ..Lamp::new("lit") }, MemoryJournal::default());
        let Err(Error::NotContained(outcome)) = converge(&lamp, &target(), &journal).await else { panic!("refused") };
        assert_eq!(outcome.status, Status::Failed);
        assert!(outcome.reason.as_ref().expect("a reason").ends_with("no such lamp"));
    }

    #[tokio::test]
    async fn a_change_that_aws_has_accepted_is_in_progress_and_not_asked_for_again() {
        let (lamp, journal) = (Lamp::new("dimming"), MemoryJournal::default());
        assert_eq!(converge(&lamp, &target(), &journal).await.expect("accepted").status, Status::InProgress);
        assert_eq!(lamp.writes(), 0);
        assert!(first(&journal).await.is_empty(), "the run that asked for it has journaled it");
    }

    #[tokio::test]
    async fn an_inspection_of_a_lit_lamp_says_failed_and_changes_nothing() {
        let (lamp, journal) = (Lamp::new("lit"), MemoryJournal::default());
        assert_eq!(inspect(&lamp, &target(), &journal).await.expect("inspected").status, Status::Failed);
        assert_eq!(lamp.writes(), 0);
    }

    #[test]
    fn what_drifted_is_journaled_at_the_value_that_its_release_is_to_restore() {
        let (seen, new) = (Key::new("attic", "Lamp"), Key::new("cellar", "Lamp"));
        let found: State<String> = [(seen.clone(), "lit".into()), (new.clone(), "lit".into())].into();
        let journaled = Journaled { first: First::new(), baseline: Some([(seen.clone(), "off".into())].into()) };
        for (on_drift, at_seen, at_new) in [
            (OnDrift::RestoreBaseline, Value::from("off"), Value::from("lit")),
            (OnDrift::Discard, Value::from("off"), Value::Null),
        ] {
            let added = to_journal(&found, &found.keys().cloned().collect(), &journaled, on_drift).expect("JSON");
            let wanted = [(seen.clone(), at_seen), (new.clone(), at_new)].into();
            assert_eq!(added, Journaled { first: wanted, baseline: None });
        }
    }
}

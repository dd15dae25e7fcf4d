//! The shape of a step and the one loop that runs it.
//!
//! A state is a value. A step reads its state, knows the state it should end in, and can write one over another.
//! Idempotency, dry run, verification and drift repair follow from the loop, without code in the step; its other
//! direction, back to what the journal has, is [`release`](crate::release()).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::release::Direction;
use crate::{Change, Error, First, Journal, Kept, Outcome, Result, Status, Target};

/// One attribute of one resource: where a value lives in AWS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// An AWS id or name.
    pub resource: String,
    /// Which attribute of it, without a `|`.
    pub attribute: String,
}

impl Key {
    /// A key for an attribute of a resource.
    pub fn new(resource: impl Into<String>, attribute: impl Into<String>) -> Self {
        Key { resource: resource.into(), attribute: attribute.into() }
    }

    /// The key as one text, as the journal and events have it: `RESOURCE|ATTRIBUTE`.
    pub fn to_text(&self) -> String {
        format!("{}|{}", self.resource, self.attribute)
    }

    /// A key from its text; a resource's name may have a `|`, an attribute's has none.
    pub fn from_text(text: &str) -> Option<Self> {
        text.rsplit_once('|').map(|(resource, attribute)| Key::new(resource, attribute))
    }
}

/// A part of the world as a plain ordered value. What is absent has no key.
pub type State<V> = BTreeMap<Key, V>;

/// What [`Step::read`] saw: the state it can change, and facts that only inform.
#[derive(Debug, Clone, PartialEq)]
pub struct Found<V, F> {
    /// What containment may change.
    pub state: State<V>,
    /// What it only needs to know.
    pub facts: F,
}

/// The state to end in, and what no change by this step can bring about.
#[derive(Debug, Clone, PartialEq)]
pub struct Goal<V> {
    /// The state to end in.
    pub state: State<V>,
    /// What an attacker can still do when the state is reached; at a release, what the reader must know of it.
    pub residual_risk: Vec<String>,
    /// What AWS does not offer for this instance; at a release, what is not restored, why, and how to finish it by hand.
    pub unsupported: Vec<String>,
    /// Why there is nothing to do, if so.
    pub not_applicable: Option<String>,
}

impl<V> Goal<V> {
    /// A goal without reservations.
    pub fn new(state: State<V>) -> Self {
        Goal { state, residual_risk: Vec::new(), unsupported: Vec::new(), not_applicable: None }
    }
}

/// What came of a write: every change was tried, and whatever failed is here.
#[derive(Debug, Default)]
pub struct Writes {
    /// The calls that failed.
    pub failures: Vec<Error>,
    /// What turned out while writing, that the reader must know.
    pub residual_risk: Vec<String>,
    /// Something waits for AWS to have room (such as 20 snapshot copies at a time); the workflow asks again.
    pub waiting: bool,
}

impl Writes {
    /// Takes note of a call's failure, if it failed.
    pub fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.failures.push(error)).ok()
    }
}

/// What a release makes of something that a case had to change later than at first: drift, that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Later {
    /// It goes back to what it was when the case changed it.
    AsFound,
    /// It goes back to what the case first saw. What was not there at that time goes back to what it was when it was changed.
    AsSeen,
    /// It goes back to what the case first saw. What was not there at that time stays away: somebody put it there while the
    /// instance was contained.
    Away,
}

/// One step of containment.
pub trait Step: Sync {
    /// The value of one attribute.
    type Value: Clone + Debug + PartialEq + Serialize + Send + Sync;
    /// What the step needs to know beside the state.
    type Facts: Debug + Send + Sync;
    /// The step's name: folder, crate, function and `Step` of the outcome.
    const NAME: &'static str;
    /// How long the loop itself waits for accepted changes to settle before it answers `InProgress`.
    const SETTLES_WITHIN: Duration = Duration::ZERO;
    /// Whether the instance is watched from the moment on that this step is done: whoever undoes it is noticed, however long
    /// the rest of the containment takes.
    const IS_WATCHED_FROM_HERE: bool = false;
    /// What a release makes of something that was as it should be, or not there, when the case first looked.
    const LATER: Later = Later::AsFound;

    /// AWS as it is now; never changes anything.
    fn read(&self, target: &Target) -> impl Future<Output = Result<Found<Self::Value, Self::Facts>>> + Send;

    /// AWS after a write: like [`read`](Step::read), but may look only at what was found before.
    fn read_again(
        &self,
        target: &Target,
        _found: &Found<Self::Value, Self::Facts>,
    ) -> impl Future<Output = Result<Found<Self::Value, Self::Facts>>> + Send {
        self.read(target)
    }

    /// The state to end in: pure, and a fixed point (what is contained stays as it is).
    fn contained(&self, target: &Target, found: &Found<Self::Value, Self::Facts>) -> Goal<Self::Value>;

    /// Whether AWS is already on its way from this value to the goal, so that there is nothing to write.
    fn accepted(&self, _value: &Self::Value) -> bool {
        false
    }

    /// What a release has to look at: the step's state, with whatever the journal names. Never changes anything.
    fn read_journaled(
        &self,
        target: &Target,
        _first: &First,
    ) -> impl Future<Output = Result<Found<Self::Value, Self::Facts>>> + Send {
        self.read(target)
    }

    /// The state to go back to: pure, and a fixed point. Only what the journal says this case has changed goes back to
    /// its first value, and nothing else; [`restored`](crate::restored) is that for a plain attribute.
    ///
    /// Unless a step says otherwise it makes evidence, or ends something: that stays as it is.
    fn released(&self, _target: &Target, found: &Found<Self::Value, Self::Facts>, _first: &First) -> Goal<Self::Value> {
        let stays = Some(format!("what {} has done stays: a release does not undo it", Self::NAME));
        Goal { not_applicable: stays, ..Goal::new(found.state.clone()) }
    }

    /// Whether AWS is already on its way from this value back to the wanted one, so that there is nothing to write.
    fn returning(&self, _value: &Self::Value, _wanted: Option<&Self::Value>) -> bool {
        false
    }

    /// What a containment's write takes away from another step before that one has looked, by that step's name. It is
    /// journaled before the write, for the release.
    fn takes_along(
        &self,
        _target: &Target,
        _found: &Found<Self::Value, Self::Facts>,
    ) -> impl Future<Output = Result<BTreeMap<&'static str, First>>> + Send {
        std::future::ready(Ok(BTreeMap::new()))
    }

    /// Moves the world from what was found to the goal, in either direction: [`contained`](Step::contained) or
    /// [`released`](Step::released). Tries everything, whatever fails; safe to repeat.
    fn write(
        &self,
        target: &Target,
        found: &Found<Self::Value, Self::Facts>,
        goal: &State<Self::Value>,
    ) -> impl Future<Output = Writes> + Send;
}

/// Runs a step: reads, journals what it is about to change, writes, and reads back until AWS shows the goal.
///
/// Reads and changes what the step does, and the case's journal. `Done` means that AWS was read and is as it should be.
/// Errors: a call that may succeed later (`Throttled`, `Unavailable`) comes back by that name for the workflow to retry;
/// [`Error::NotContained`] carries the outcome of a step that AWS let change only in part, or not at all.
pub async fn converge<S: Step>(step: &S, target: &Target, journal: &impl Journal) -> Result<Outcome> {
    let (found, kept, ()) =
        futures::try_join!(step.read(target), journal.kept(target, S::NAME), journal_the_unjournaled(target, journal))?;
    let goal = step.contained(target, &found);
    if target.dry_run {
        return Ok(planned::<S>(&found, goal));
    }
    let open = unlike(&found.state, &goal.state);
    let way = Direction::Contain;
    let moving = way.is_moving(step, &found.state, &goal.state, &open);
    let changing = if moving { BTreeSet::new() } else { open };
    let first = journal_the_changing::<S>(target, journal, &found.state, &changing, kept).await?;
    if moving {
        return conclude(step, &way, &first, &found.state, &found, goal, Writes::default(), false);
    }

    // What can't be read must be said, and is no reason to leave the instance as it is.
    let unread = match step.takes_along(target, &found).await {
        Ok(along) => {
            for (other, values) in along {
                journal_for(other, target, journal, values).await?;
            }
            None
        }
        Err(error) => Some(format!(
            "what this step takes along is not in the journal, so that a release can't restore it: {error}"
        )),
    };

    let mut writes = step.write(target, &found, &goal.state).await;
    writes.residual_risk.extend(unread);
    let (after, goal) = read_back(step, &way, target, &found, &writes).await?;
    conclude(step, &way, &first, &found.state, &after, goal, writes, true)
}

/// Journals what is about to change, and at a step's first run what it has seen, as far as a release needs it; answers
/// all first values.
async fn journal_the_changing<S: Step>(
    target: &Target,
    journal: &impl Journal,
    found: &State<S::Value>,
    changing: &BTreeSet<Key>,
    kept: Kept,
) -> Result<First> {
    let Kept { first, seen } = kept;
    let mut missing = values(found, changing.iter().filter(|key| !first.contains_key(key)))?;
    if let Some(seen) = &seen {
        for (key, value) in &mut missing {
            match seen.get(key) {
                Some(seen) => value.clone_from(seen),
                None if S::LATER == Later::Away => *value = Value::Null,
                None => {}
            }
        }
    }
    let looked = if seen.is_none() { looked::<S>(found)? } else { None };
    if missing.is_empty() && looked.is_none() {
        return Ok(first);
    }
    Ok(journal.keep(target, S::NAME, &missing, looked.as_ref()).await?.first)
}

/// All that a step has seen, where a release needs it.
fn looked<S: Step>(found: &State<S::Value>) -> Result<Option<First>> {
    match S::LATER {
        Later::AsFound => Ok(None),
        Later::AsSeen | Later::Away => values(found, found.keys()).map(Some),
    }
}

async fn journal_the_unjournaled(target: &Target, journal: &impl Journal) -> Result<()> {
    for (step, values) in target.unjournaled.iter().filter(|_| !target.dry_run) {
        let first: First =
            values.iter().filter_map(|(key, value)| Some((Key::from_text(key)?, value.clone()))).collect();
        journal_for(step, target, journal, first).await?;
    }
    Ok(())
}

/// Journals what another step has to restore. What that step did not see when it first ran was put there since, and is
/// nothing to restore.
async fn journal_for(step: &str, target: &Target, journal: &impl Journal, mut first: First) -> Result<()> {
    if journal.keep_ahead(target, step, &first, None).await? {
        return Ok(());
    }
    let seen = journal.kept(target, step).await?.seen.unwrap_or_default();
    first.iter_mut().filter(|(key, _)| !seen.contains_key(key)).for_each(|(_, value)| *value = Value::Null);
    journal.keep_first(target, step, &first).await.map(|_| ())
}

/// Reads a step's state and says how it stands, without changing anything: the verifier's look.
pub async fn inspect<S: Step>(step: &S, target: &Target, journal: &impl Journal) -> Result<Outcome> {
    let (found, first) = futures::try_join!(step.read(target), journal.first(target, S::NAME))?;
    let goal = step.contained(target, &found);
    conclude(step, &Direction::Contain, &first, &found.state, &found, goal, Writes::default(), false)
}

/// Journals what a step would change, and what it would see first, ahead of its first run. Writes only what is not in the
/// journal yet; once the step has looked, it journals by itself.
pub async fn keep_first<S: Step>(
    step: &S,
    target: &Target,
    found: &Found<S::Value, S::Facts>,
    journal: &impl Journal,
) -> Result<()> {
    let goal = step.contained(target, found);
    let open = values(&found.state, unlike(&found.state, &goal.state).iter())?;
    let looked = looked::<S>(&found.state)?;
    if !open.is_empty() || looked.is_some() {
        journal.keep_ahead(target, S::NAME, &open, looked.as_ref()).await?;
    }
    Ok(())
}

/// How long AWS may take to show a change that it has accepted (trap I3), read after read.
const READ_BACK: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

type Read<S> = (Found<<S as Step>::Value, <S as Step>::Facts>, Goal<<S as Step>::Value>);

pub(crate) async fn read_back<S: Step>(
    step: &S,
    way: &Direction<'_>,
    target: &Target,
    found: &Found<S::Value, S::Facts>,
    writes: &Writes,
) -> Result<Read<S>> {
    let mut waited = Duration::ZERO;
    for delay in READ_BACK.into_iter().chain(std::iter::repeat(Duration::from_secs(4))) {
        tokio::time::sleep(delay).await;
        waited += delay;
        let after = way.read_again(step, target, found).await?;
        let goal = way.goal(step, target, &after);
        let open = unlike(&after.state, &goal.state);
        let accepted = way.is_moving(step, &after.state, &goal.state, &open);
        let given_up = !writes.failures.is_empty() || writes.waiting || waited > Duration::from_secs(7);
        let enough = if accepted { waited >= S::SETTLES_WITHIN } else { given_up };
        if open.is_empty() || enough {
            return Ok((after, goal));
        }
    }
    unreachable!("the delays never end")
}

pub(crate) fn unlike<V: PartialEq>(one: &State<V>, other: &State<V>) -> BTreeSet<Key> {
    one.keys().chain(other.keys()).filter(|key| one.get(key) != other.get(key)).cloned().collect()
}

/// The values at these keys, as the journal keeps them: null for what is absent.
fn values<'a, V: Serialize + 'a>(state: &State<V>, keys: impl Iterator<Item = &'a Key>) -> Result<First> {
    keys.map(|key| Ok((key.clone(), json(state.get(key))?))).collect()
}

fn json<V: Serialize>(value: Option<&V>) -> Result<Value> {
    serde_json::to_value(value)
        .map_err(|error| Error::Misconfigured(format!("a state can't be written as JSON: {error}")))
}

pub(crate) fn planned<S: Step>(found: &Found<S::Value, S::Facts>, goal: Goal<S::Value>) -> Outcome {
    let changes: Vec<Change> = unlike(&found.state, &goal.state)
        .into_iter()
        .map(|key| Change {
            before: json(found.state.get(&key)).unwrap_or_default(),
            after: json(goal.state.get(&key)).unwrap_or_default(),
            resource: key.resource,
            attribute: key.attribute,
        })
        .collect();
    let (status, reason) = match (changes.is_empty(), goal.unsupported.is_empty(), goal.not_applicable) {
        (false, true, _) => (Status::Planned, None),
        (false, false, _) => (Status::Planned, Some(goal.unsupported.join("; "))),
        (true, false, _) => (Status::Unsupported, Some(goal.unsupported.join("; "))),
        (true, true, Some(why)) => (Status::NotApplicable, Some(why)),
        (true, true, None) => (Status::Done, Some("already so; a run would change nothing".to_owned())),
    };
    Outcome { changes, residual_risk: goal.residual_risk, ..Outcome::new(S::NAME, status, reason) }
}

/// Says how things stand, from what was journaled first (or found, at a release) and what was read last.
#[expect(clippy::too_many_arguments, reason = "all that a run has seen, in the order in which it saw it")]
pub(crate) fn conclude<S: Step>(
    step: &S,
    way: &Direction<'_>,
    first: &First,
    found: &State<S::Value>,
    after: &Found<S::Value, S::Facts>,
    goal: Goal<S::Value>,
    mut writes: Writes,
    wrote: bool,
) -> Result<Outcome> {
    let open = unlike(&after.state, &goal.state);
    let changes = changes(first, found, &after.state)?;
    let moving = writes.waiting || way.is_moving(step, &after.state, &goal.state, &open);
    if let Some(position) = writes.failures.iter().position(Error::is_transient)
        && !open.is_empty()
    {
        return Err(writes.failures.swap_remove(position));
    }
    let refused =
        !writes.failures.is_empty() && writes.failures.iter().all(|e| e.code() == Some("UnsupportedOperation"));
    let failures = writes.failures.iter().map(ToString::to_string);
    let left = open.iter().map(|key| {
        let shown = |state: &State<S::Value>| json(state.get(key)).unwrap_or_default();
        format!("{} of {} is {}, wanted {}", key.attribute, key.resource, shown(&after.state), shown(&goal.state))
    });
    let (status, reason) = if open.is_empty() {
        match (goal.unsupported.is_empty(), goal.not_applicable) {
            (false, _) => (Status::Unsupported, Some(goal.unsupported.join("; "))),
            (true, Some(why)) if changes.is_empty() => (Status::NotApplicable, Some(why)),
            _ if wrote => (Status::Done, None),
            _ => (Status::Done, Some(way.already().to_owned())),
        }
    } else if moving && writes.failures.is_empty() {
        (Status::InProgress, Some(left.collect::<Vec<_>>().join("; ")))
    } else if refused {
        (Status::Unsupported, Some(failures.chain(goal.unsupported.iter().cloned()).collect::<Vec<_>>().join("; ")))
    } else {
        (
            Status::Failed,
            Some(left.chain(failures).chain(goal.unsupported.iter().cloned()).collect::<Vec<_>>().join("; ")),
        )
    };
    let mut residual_risk = goal.residual_risk;
    residual_risk.append(&mut writes.residual_risk);
    let outcome = Outcome { changes, residual_risk, ..Outcome::new(S::NAME, status, reason) };
    match status {
        Status::Failed if wrote => Err(way.missed(outcome)),
        _ => Ok(outcome),
    }
}

/// The case's changes: from the journaled first value, or else from what this run found, to what AWS shows now. What was
/// made otherwise in between, and is now as it was first, is this run's change.
fn changes<V: Serialize>(first: &First, found: &State<V>, after: &State<V>) -> Result<Vec<Change>> {
    let keys: BTreeSet<&Key> = first.keys().chain(found.keys()).chain(after.keys()).collect();
    let mut changes = Vec::new();
    for key in keys {
        let (found, after) = (json(found.get(key))?, json(after.get(key))?);
        let before = first.get(key).filter(|first| **first != after).cloned().unwrap_or(found);
        if before != after {
            let (resource, attribute) = (key.resource.clone(), key.attribute.clone());
            changes.push(Change { resource, attribute, before, after });
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Memory;
    use std::sync::Mutex;

    /// A lamp that containment switches off. `lag` reads show the old light after a write, as EC2 does.
    #[derive(Default)]
    struct Lamp {
        lit: Mutex<String>,
        lag: Mutex<Vec<String>>,
        stuck: bool,
        denied: bool,
        /// What goes with the light, or why it can't be read.
        along: Option<std::result::Result<First, String>>,
        writes: Mutex<u32>,
    }

    impl Lamp {
        fn new(light: &str) -> Self {
            Lamp { lit: Mutex::new(light.into()), ..Lamp::default() }
        }
    }

    impl Step for Lamp {
        type Value = String;
        type Facts = ();
        const NAME: &'static str = "switch-off";

        async fn read(&self, _: &Target) -> Result<Found<String, ()>> {
            let shown = self.lag.lock().expect("lock").pop().unwrap_or_else(|| self.lit.lock().expect("lock").clone());
            Ok(Found { state: [(Key::new("lamp", "Light"), shown)].into(), facts: () })
        }

        fn contained(&self, _: &Target, found: &Found<String, ()>) -> Goal<String> {
            Goal::new(found.state.keys().map(|key| (key.clone(), "off".to_owned())).collect())
        }

        fn accepted(&self, light: &String) -> bool {
            light == "dimming"
        }

        async fn takes_along(&self, _: &Target, _: &Found<String, ()>) -> Result<BTreeMap<&'static str, First>> {
            match self.along.clone() {
                None => Ok(BTreeMap::new()),
                Some(along) => along.map(|along| [("draw-curtains", along)].into()).map_err(Error::NotFound),
            }
        }

        async fn write(&self, _: &Target, found: &Found<String, ()>, goal: &State<String>) -> Writes {
            *self.writes.lock().expect("lock") += 1;
            let mut writes = Writes::default();
            if self.denied {
                writes.note::<()>(Err(Error::NotFound("no such lamp".into())));
            } else if !self.stuck {
                let key = Key::new("lamp", "Light");
                assert!(found.state.contains_key(&key));
                *self.lit.lock().expect("lock") = goal[&key].clone();
            }
            writes
        }
    }

    fn target() -> Target {
        Target::example()
    }

    #[tokio::test]
    async fn a_lit_lamp_is_switched_off_and_the_journal_has_the_light_it_had() {
        let (lamp, journal) = (Lamp::new("lit"), Memory::default());
        let outcome = converge(&lamp, &target(), &journal).await.expect("converges");
        assert_eq!(outcome.status, Status::Done);
        assert_eq!((&outcome.changes[0].before, &outcome.changes[0].after), (&"lit".into(), &"off".into()));
        let first = journal.first(&target(), Lamp::NAME).await.expect("journal");
        assert_eq!(first[&Key::new("lamp", "Light")], "lit");
    }

    #[tokio::test]
    async fn a_second_run_writes_nothing_and_still_shows_the_cases_change() {
        let (lamp, journal) = (Lamp::new("lit"), Memory::default());
        let once = converge(&lamp, &target(), &journal).await.expect("converges");
        let twice = converge(&lamp, &target(), &journal).await.expect("converges");
        assert_eq!(*lamp.writes.lock().expect("lock"), 1);
        assert_eq!((twice.status, &twice.changes), (Status::Done, &once.changes));
        assert!(twice.reason.expect("a reason").contains("nothing was changed by this run"));
    }

    #[tokio::test]
    async fn a_retry_keeps_the_first_before_and_not_the_state_that_the_first_try_left() {
        let (lamp, journal) = (Lamp::new("lit"), Memory::default());
        journal
            .keep_first(&target(), Lamp::NAME, &[(Key::new("lamp", "Light"), "bright".into())].into())
            .await
            .expect("kept");
        let outcome = converge(&lamp, &target(), &journal).await.expect("converges");
        assert_eq!(outcome.changes[0].before, "bright");
    }

    #[tokio::test]
    async fn first_values_of_another_step_are_journaled_before_anything_is_written() {
        let (lamp, journal) = (Lamp { denied: true, ..Lamp::new("lit") }, Memory::default());
        let values = [("tg-1|Target i-1".to_owned(), Value::from("registered"))].into();
        let target = Target { unjournaled: [("deregister-targets".to_owned(), values)].into(), ..target() };
        converge(&lamp, &target, &journal).await.expect_err("denied");
        let first = journal.first(&target, "deregister-targets").await.expect("journal");
        assert_eq!(first[&Key::new("tg-1", "Target i-1")], "registered");
    }

    #[tokio::test]
    async fn what_a_write_takes_away_from_another_step_is_journaled_for_that_step_before_it() {
        let along: First = [(Key::new("window", "Curtain"), "open".into())].into();
        let (lamp, journal) =
            (Lamp { along: Some(Ok(along.clone())), denied: true, ..Lamp::new("lit") }, Memory::default());
        converge(&lamp, &target(), &journal).await.expect_err("denied");
        assert_eq!(journal.first(&target(), "draw-curtains").await.expect("journal"), along);
    }

    #[tokio::test]
    async fn what_another_step_did_not_see_at_first_is_nothing_that_it_has_to_restore() {
        let (seen, since) = (Key::new("window", "Curtain"), Key::new("door", "Curtain"));
        let along: First = [(seen.clone(), "open".into()), (since.clone(), "open".into())].into();
        let (lamp, journal) = (Lamp { along: Some(Ok(along)), ..Lamp::new("lit") }, Memory::default());
        let looked = [(seen.clone(), "half open".into())].into();
        journal.keep(&target(), "draw-curtains", &First::new(), Some(&looked)).await.expect("kept");
        converge(&lamp, &target(), &journal).await.expect("converges");
        let first = journal.first(&target(), "draw-curtains").await.expect("journal");
        assert_eq!((&first[&seen], &first[&since]), (&Value::from("open"), &Value::Null));
    }

    #[tokio::test]
    async fn what_a_write_takes_away_and_nobody_can_read_is_said_and_does_not_keep_it_from_being_done() {
        let (lamp, journal) = (Lamp { along: Some(Err("too dark".into())), ..Lamp::new("lit") }, Memory::default());
        let outcome = converge(&lamp, &target(), &journal).await.expect("converges");
        assert_eq!(outcome.status, Status::Done);
        assert!(
            outcome.residual_risk[0].contains("a release can't restore it: too dark"),
            "{:?}",
            outcome.residual_risk
        );
    }

    #[tokio::test]
    async fn a_dry_run_shows_the_plan_and_touches_neither_lamp_nor_journal() {
        let (lamp, journal) = (Lamp::new("lit"), Memory::default());
        let outcome = converge(&lamp, &Target { dry_run: true, ..target() }, &journal).await.expect("plans");
        assert_eq!((outcome.status, outcome.changes.len()), (Status::Planned, 1));
        assert_eq!(*lamp.writes.lock().expect("lock"), 0);
        assert!(journal.first(&target(), Lamp::NAME).await.expect("journal").is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_shows_late_is_waited_for() {
        let (lamp, journal) = (Lamp::new("lit"), Memory::default());
        *lamp.lag.lock().expect("lock") = vec!["lit".into(); 4];
        assert_eq!(converge(&lamp, &target(), &journal).await.expect("converges").status, Status::Done);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_returns_success_and_changes_nothing_is_a_failure() {
        let (lamp, journal) = (Lamp { stuck: true, ..Lamp::new("lit") }, Memory::default());
        let error = converge(&lamp, &target(), &journal).await.expect_err("not contained");
        assert_eq!(error.name(), "NotContained");
        assert!(error.to_string().contains(r#"Light of lamp is \"lit\", wanted \"off\""#), "{error}");
    }

    #[tokio::test]
    async fn a_refused_write_says_what_is_left_and_what_aws_said() {
        let (lamp, journal) = (Lamp { denied: true, ..Lamp::new("lit") }, Memory::default());
        let Err(Error::NotContained(outcome)) = converge(&lamp, &target(), &journal).await else { panic!("refused") };
        assert_eq!(outcome.status, Status::Failed);
        assert!(outcome.reason.as_ref().expect("a reason").ends_with("no such lamp"));
    }

    #[tokio::test]
    async fn what_aws_is_already_at_is_in_progress_and_not_asked_for_again() {
        let (lamp, journal) = (Lamp::new("dimming"), Memory::default());
        assert_eq!(converge(&lamp, &target(), &journal).await.expect("accepted").status, Status::InProgress);
        assert_eq!(*lamp.writes.lock().expect("lock"), 0);
    }

    #[tokio::test]
    async fn an_inspection_of_a_lit_lamp_says_failed_and_changes_nothing() {
        let (lamp, journal) = (Lamp::new("lit"), Memory::default());
        assert_eq!(inspect(&lamp, &target(), &journal).await.expect("inspected").status, Status::Failed);
        assert_eq!(*lamp.writes.lock().expect("lock"), 0);
    }
}

//! The loop's other direction: back to what the journal says was there first.
//!
//! The same reads as a containment, and mostly the same writes, towards another goal. Only what this case has changed is
//! restored, to the value that it had and never to a default; what can't be restored is named, and the rest goes on.

use std::future::Future;

use serde::de::DeserializeOwned;

use crate::run::{Direction, Run, planned};
use crate::{Error, First, Found, Goal, Journal, Key, Outcome, Result, State, Status, Step, Target, Writes};

/// What a release makes of drift: of a change that somebody made to a contained instance, and that a repair undid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDrift {
    /// It goes back to what the repair found.
    RestoreFound,
    /// It goes back to the case's baseline; what is not in the baseline goes back to what the repair found.
    RestoreBaseline,
    /// It goes back to the case's baseline; what is not in the baseline stays away, since somebody put it there while the
    /// instance was contained.
    Discard,
}

/// A step whose changes a release takes back.
pub trait Reversible: Step {
    /// What a release makes of drift. Unless nothing but the found value matters, the journal keeps a baseline for it.
    const ON_DRIFT: OnDrift = OnDrift::RestoreFound;

    /// What a release has to look at: the step's state, with whatever the journal names. Never changes anything.
    fn read_journaled(
        &self,
        target: &Target,
        _first: &First,
    ) -> impl Future<Output = Result<Found<Self::Value, Self::Facts>>> + Send {
        self.read(target)
    }

    /// The state to go back to: pure, and a fixed point. Only what the journal says this case has changed goes back to
    /// its first value, and nothing else; [`restored`] is that for a plain attribute.
    fn released(&self, target: &Target, found: &Found<Self::Value, Self::Facts>, first: &First) -> Goal<Self::Value>;

    /// Whether AWS is on its way from this value back to the wanted one already, so that there is nothing to write.
    fn returning(&self, _value: &Self::Value, _wanted: Option<&Self::Value>) -> bool {
        false
    }

    /// Moves the world back: [`write`](Step::write), unless the way back is another one.
    fn restore(
        &self,
        target: &Target,
        found: &Found<Self::Value, Self::Facts>,
        goal: &State<Self::Value>,
    ) -> impl Future<Output = Writes> + Send {
        self.write(target, found, goal)
    }
}

/// Back to these first values.
struct Release<'a>(&'a First);

impl<S: Reversible> Direction<S> for Release<'_> {
    const ALREADY: &'static str = "as it was before the containment; nothing was changed by this run";

    fn first(&self) -> &First {
        static NONE: First = First::new();
        &NONE
    }

    fn goal(&self, step: &S, target: &Target, found: &Found<S::Value, S::Facts>) -> Goal<S::Value> {
        let mut goal = step.released(target, found, self.0);
        if S::ON_DRIFT == OnDrift::Discard {
            goal.residual_risk.extend(discarded(&found.state, self.0));
        }
        goal
    }

    fn is_under_way(&self, step: &S, now: &S::Value, wanted: Option<&S::Value>) -> bool {
        step.returning(now, wanted)
    }

    async fn write(
        &self,
        step: &S,
        target: &Target,
        found: &Found<S::Value, S::Facts>,
        goal: &State<S::Value>,
    ) -> Writes {
        step.restore(target, found, goal).await
    }

    async fn read(&self, step: &S, target: &Target) -> Result<Found<S::Value, S::Facts>> {
        step.read_journaled(target, self.0).await
    }

    fn missed(outcome: Outcome) -> Error {
        Error::NotReleased(Box::new(outcome))
    }
}

/// Releases a step: reads, writes what the journal has over what the case has changed, and reads back until AWS shows it.
///
/// Reads and changes what the step does; reads the case's journal and never writes it, so that the next release finishes
/// one that was interrupted. The changes are from what this run found to what it read back.
/// `Done` means that AWS was read and is as it was before the containment, `NotApplicable` that this case changed nothing
/// here (or that the step is not among those asked for), `Unsupported` that part of it can't be restored or was not, for
/// the reason given, and the rest is. Errors: as [`converge`](crate::converge_reversibly()) has them, and
/// [`Error::NotReleased`] for what should have been restored and is not.
pub async fn release<S: Reversible>(step: &S, target: &Target, journal: &impl Journal) -> Result<Outcome> {
    let first = match to_restore::<S>(target, journal).await? {
        Ok(first) => first,
        Err(outcome) => return Ok(outcome),
    };
    let found = step.read_journaled(target, &first).await?;
    let direction = Release(&first);
    let goal = direction.goal(step, target, &found);
    if target.dry_run {
        return Ok(planned::<S>(&found.state, goal));
    }
    Run { step, target, direction, residual_risk: Vec::new() }.carry_out(found, goal).await
}

/// Reads a step's state and says how its release stands, without changing anything: what the verifier asks.
pub async fn inspect_release<S: Reversible>(step: &S, target: &Target, journal: &impl Journal) -> Result<Outcome> {
    let first = match to_restore::<S>(target, journal).await? {
        Ok(first) => first,
        Err(outcome) => return Ok(outcome),
    };
    let found = step.read_journaled(target, &first).await?;
    let direction = Release(&first);
    let goal = direction.goal(step, target, &found);
    let run = Run { step, target, direction, residual_risk: Vec::new() };
    run.conclude(&found.state, &found.state, goal, None)
}

/// What the step has to restore, or the answer that it has nothing to.
async fn to_restore<S: Step>(target: &Target, journal: &impl Journal) -> Result<std::result::Result<First, Outcome>> {
    let nothing = |why: &str| Ok(Err(Outcome::new(S::NAME, Status::NotApplicable, why.to_owned())));
    if target.release.as_ref().is_some_and(|steps| !steps.iter().any(|step| step == S::NAME)) {
        return nothing("not among the steps that are to be released");
    }
    let first = journal.read(target, S::NAME).await?.first;
    if first.is_empty() { nothing("this case changed nothing here") } else { Ok(Ok(first)) }
}

/// A sentence for each value that somebody added while the instance was contained.
fn discarded<V>(found: &State<V>, first: &First) -> Vec<String> {
    let absent_at_first = first.iter().filter(|(_, value)| value.is_null());
    let said = absent_at_first.map(|(key, _)| {
        let now = if found.contains_key(key) { "stays as it is now" } else { "is not restored" };
        format!("{} of {} was added while the instance was contained, and {now}", key.attribute, key.resource)
    });
    said.collect()
}

/// The first values as the step's own, absent ones as `None`, and a sentence for each that can't be read.
pub fn first_values<V: DeserializeOwned>(first: &First) -> (Vec<(Key, Option<V>)>, Vec<String>) {
    let (mut values, mut unreadable) = (Vec::new(), Vec::new());
    for (key, value) in first {
        match serde_json::from_value(value.clone()) {
            Ok(value) => values.push((key.clone(), value)),
            Err(error) => unreadable.push(format!(
                "{} of {} is not restored: its first value in the journal, {value}, can't be read: {error}",
                key.attribute, key.resource
            )),
        }
    }
    (values, unreadable)
}

/// What was found, with each journaled value set back to what it was first: the goal of most steps that set plain
/// attributes. What the journal does not have is left as it is.
pub fn restored<V: Clone + DeserializeOwned>(found: &State<V>, first: &First) -> Goal<V> {
    let mut goal = Goal::new(found.clone());
    let (values, unreadable) = first_values(first);
    for (key, value) in values {
        match value {
            Some(value) => _ = goal.state.insert(key, value),
            None => _ = goal.state.remove(&key),
        }
    }
    goal.unsupported = unreadable;
    goal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::diff;
    use crate::{Journaled, MemoryJournal, converge_reversibly};
    use serde_json::{Value, json};
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    /// A house whose lamps containment switches off, and whose doors it locks. A write to what is in `jammed` is refused.
    #[derive(Default)]
    struct House {
        state: Mutex<State<String>>,
        jammed: Mutex<BTreeSet<Key>>,
        writes: Mutex<usize>,
    }

    impl House {
        fn new(state: &[(&str, &str, &str)]) -> Self {
            let state = state.iter().map(|(room, what, value)| (Key::new(*room, *what), (*value).to_owned()));
            House { state: Mutex::new(state.collect()), ..House::default() }
        }

        fn state(&self) -> State<String> {
            self.state.lock().expect("lock").clone()
        }
    }

    impl Step for House {
        type Value = String;
        type Facts = ();
        const NAME: &'static str = "lock-house";

        async fn read(&self, _: &Target) -> Result<Found<String, ()>> {
            Ok(Found { state: self.state(), facts: () })
        }

        /// Lamps go off, doors are locked, and each room gets a seal.
        fn contained(&self, _: &Target, found: &Found<String, ()>, _: &Journaled) -> Goal<String> {
            let mut goal = Goal::new(found.state.clone());
            for key in found.state.keys() {
                match key.attribute.as_str() {
                    "Lamp" => _ = goal.state.insert(key.clone(), "off".to_owned()),
                    "Door" => _ = goal.state.insert(key.clone(), "locked".to_owned()),
                    _ => {}
                }
                goal.state.insert(Key::new(&key.resource, "Seal"), "sealed".to_owned());
            }
            goal
        }

        async fn write(&self, _: &Target, found: &Found<String, ()>, goal: &State<String>) -> Writes {
            *self.writes.lock().expect("lock") += 1;
            let mut writes = Writes::default();
            for key in diff(&found.state, goal) {
                if self.jammed.lock().expect("lock").contains(&key) {
                    writes.note::<()>(Err(Error::NotFound(format!("{} is jammed", key.to_text()))));
                    continue;
                }
                let mut state = self.state.lock().expect("lock");
                match goal.get(&key) {
                    Some(value) => _ = state.insert(key, value.clone()),
                    None => _ = state.remove(&key),
                }
            }
            writes
        }
    }

    impl Reversible for House {
        fn released(&self, _: &Target, found: &Found<String, ()>, first: &First) -> Goal<String> {
            restored(&found.state, first)
        }

        fn returning(&self, value: &String, wanted: Option<&String>) -> bool {
            value == "warming up" && wanted.is_some_and(|wanted| wanted == "lit")
        }
    }

    /// The same, but drift goes back to the baseline.
    struct Seeing<'a>(&'a House);

    impl Step for Seeing<'_> {
        type Value = String;
        type Facts = ();
        const NAME: &'static str = House::NAME;

        async fn read(&self, target: &Target) -> Result<Found<String, ()>> {
            self.0.read(target).await
        }

        fn contained(&self, target: &Target, found: &Found<String, ()>, journaled: &Journaled) -> Goal<String> {
            self.0.contained(target, found, journaled)
        }

        async fn write(&self, target: &Target, found: &Found<String, ()>, goal: &State<String>) -> Writes {
            self.0.write(target, found, goal).await
        }
    }

    impl Reversible for Seeing<'_> {
        const ON_DRIFT: OnDrift = OnDrift::RestoreBaseline;

        fn released(&self, target: &Target, found: &Found<String, ()>, first: &First) -> Goal<String> {
            self.0.released(target, found, first)
        }
    }

    /// Lamps are taken down.
    struct Removing<'a>(&'a House);

    impl Step for Removing<'_> {
        type Value = String;
        type Facts = ();
        const NAME: &'static str = "take-down-lamps";

        async fn read(&self, target: &Target) -> Result<Found<String, ()>> {
            self.0.read(target).await
        }

        fn contained(&self, _: &Target, found: &Found<String, ()>, _: &Journaled) -> Goal<String> {
            let mut goal = Goal::new(found.state.clone());
            goal.state.retain(|key, _| key.attribute != "Lamp" || key.resource == "attic");
            goal.state.extend(
                found
                    .state
                    .keys()
                    .filter(|key| **key == Key::new("attic", "Lamp"))
                    .map(|key| (key.clone(), "off".to_owned())),
            );
            goal
        }

        async fn write(&self, target: &Target, found: &Found<String, ()>, goal: &State<String>) -> Writes {
            self.0.write(target, found, goal).await
        }
    }

    impl Reversible for Removing<'_> {
        const ON_DRIFT: OnDrift = OnDrift::Discard;

        fn released(&self, _: &Target, found: &Found<String, ()>, first: &First) -> Goal<String> {
            restored(&found.state, first)
        }
    }

    const ROOMS: [(&str, &str, &str); 3] =
        [("hall", "Lamp", "lit"), ("hall", "Door", "ajar"), ("attic", "Lamp", "off")];

    fn contained() -> Target {
        Target::example()
    }

    fn released() -> Target {
        Target { release: Some(vec![House::NAME.to_owned()]), ..contained() }
    }

    #[tokio::test]
    async fn what_was_changed_goes_back_and_what_was_added_goes_away() {
        let (house, journal) = (House::new(&ROOMS), MemoryJournal::default());
        let before = house.state();
        converge_reversibly(&house, &contained(), &journal).await.expect("contained");
        assert_ne!(house.state(), before);
        let outcome = release(&house, &released(), &journal).await.expect("released");
        assert_eq!((outcome.status, house.state()), (Status::Done, before));
        let lamp = outcome.changes.iter().find(|c| c.attribute == "Lamp").expect("the lamp's change");
        assert_eq!((&lamp.before, &lamp.after), (&json!("off"), &json!("lit")));
        let seal = outcome.changes.iter().find(|c| c.attribute == "Seal").expect("the seal's change");
        assert_eq!((&seal.before, &seal.after), (&json!("sealed"), &Value::Null));
    }

    #[tokio::test]
    async fn a_second_release_changes_nothing_and_says_so() {
        let (house, journal) = (House::new(&ROOMS), MemoryJournal::default());
        converge_reversibly(&house, &contained(), &journal).await.expect("contained");
        release(&house, &released(), &journal).await.expect("released");
        let writes = *house.writes.lock().expect("lock");
        let again = release(&house, &released(), &journal).await.expect("released");
        assert_eq!((again.status, again.changes.len()), (Status::Done, 0));
        assert!(again.reason.expect("a reason").contains("nothing was changed by this run"));
        assert_eq!(*house.writes.lock().expect("lock"), writes);
    }

    #[tokio::test]
    async fn what_containment_did_not_change_is_left_alone() {
        let (house, journal) = (House::new(&ROOMS), MemoryJournal::default());
        converge_reversibly(&house, &contained(), &journal).await.expect("contained");
        house.state.lock().expect("lock").insert(Key::new("attic", "Lamp"), "flickering".to_owned());
        release(&house, &released(), &journal).await.expect("released");
        assert_eq!(
            house.state()[&Key::new("attic", "Lamp")],
            "flickering",
            "it was off before the containment as well"
        );
    }

    /// While the house is locked somebody lights a lamp that was off, and hangs one up where there was none.
    async fn locked_again_after_drift<S: Reversible>(house: &House, step: &S) -> Outcome {
        let journal = MemoryJournal::default();
        converge_reversibly(step, &contained(), &journal).await.expect("contained");
        for (room, light) in [("attic", "lit"), ("cellar", "lit")] {
            house.state.lock().expect("lock").insert(Key::new(room, "Lamp"), light.to_owned());
        }
        let repaired = converge_reversibly(step, &contained(), &journal).await.expect("contained again");
        let of_attic =
            repaired.changes.iter().find(|c| (c.resource.as_str(), c.attribute.as_str()) == ("attic", "Lamp"));
        let of_attic = of_attic.expect("the repair names what it changed");
        assert_eq!((&of_attic.before, &of_attic.after), (&json!("lit"), &json!("off")));
        let target = Target { release: Some(vec![S::NAME.to_owned()]), ..contained() };
        release(step, &target, &journal).await.expect("released")
    }

    #[tokio::test]
    async fn what_drifted_goes_back_to_the_baseline_and_what_came_later_to_what_the_repair_found() {
        let house = House::new(&ROOMS);
        locked_again_after_drift(&house, &Seeing(&house)).await;
        let state = house.state();
        assert_eq!(state[&Key::new("attic", "Lamp")], "off", "somebody lit it while the house was locked");
        assert_eq!(state[&Key::new("cellar", "Lamp")], "lit", "there was none before");
    }

    #[tokio::test]
    async fn what_somebody_added_meanwhile_is_not_restored_and_the_release_says_so() {
        let house = House::new(&ROOMS);
        let before = house.state();
        let outcome = locked_again_after_drift(&house, &Removing(&house)).await;
        assert_eq!(house.state(), before);
        let said = "Lamp of cellar was added while the instance was contained, and is not restored";
        assert_eq!(outcome.residual_risk, [said.to_owned()]);
    }

    #[tokio::test]
    async fn a_case_that_changed_nothing_has_nothing_to_release_and_reads_nothing() {
        let (house, journal) = (House::new(&ROOMS), MemoryJournal::default());
        let outcome = release(&house, &released(), &journal).await.expect("answered");
        assert_eq!(outcome.status, Status::NotApplicable);
        assert_eq!(outcome.reason.as_deref(), Some("this case changed nothing here"));
    }

    #[tokio::test]
    async fn a_step_that_is_not_to_be_released_stays_contained() {
        let (house, journal) = (House::new(&ROOMS), MemoryJournal::default());
        converge_reversibly(&house, &contained(), &journal).await.expect("contained");
        let (kept, others) = (house.state(), Target { release: Some(vec!["tag-resources".into()]), ..contained() });
        assert_eq!(release(&house, &others, &journal).await.expect("answered").status, Status::NotApplicable);
        assert_eq!(house.state(), kept);
    }

    #[tokio::test]
    async fn a_dry_run_of_a_release_shows_what_would_be_restored_and_touches_nothing() {
        let (house, journal) = (House::new(&ROOMS), MemoryJournal::default());
        converge_reversibly(&house, &contained(), &journal).await.expect("contained");
        let kept = house.state();
        let outcome = release(&house, &Target { dry_run: true, ..released() }, &journal).await.expect("planned");
        assert_eq!((outcome.status, outcome.changes.len(), house.state()), (Status::Planned, 4, kept));
    }

    #[tokio::test]
    async fn a_refused_release_says_so_in_its_outcome_and_a_second_run_finishes_it() {
        let (house, journal) = (House::new(&ROOMS), MemoryJournal::default());
        let before = house.state();
        converge_reversibly(&house, &contained(), &journal).await.expect("contained");
        house.jammed.lock().expect("lock").insert(Key::new("hall", "Door"));
        let error = release(&house, &released(), &journal).await.expect_err("the door is jammed");
        assert_eq!(error.name(), "NotReleased");
        let Error::NotReleased(outcome) = error else { panic!("named so") };
        assert_eq!((outcome.status, outcome.changes.len()), (Status::Failed, 3), "the rest went on");
        assert!(outcome.reason.as_ref().expect("a reason").contains("Door of hall is \"locked\", wanted \"ajar\""));
        house.jammed.lock().expect("lock").clear();
        assert_eq!(release(&house, &released(), &journal).await.expect("released").status, Status::Done);
        assert_eq!(house.state(), before);
    }

    #[tokio::test]
    async fn a_value_on_its_way_back_is_in_progress_and_not_asked_for_again() {
        let (house, journal) = (House::new(&[("hall", "Lamp", "lit")]), MemoryJournal::default());
        converge_reversibly(&house, &contained(), &journal).await.expect("contained");
        release(&house, &released(), &journal).await.expect("released");
        house.state.lock().expect("lock").insert(Key::new("hall", "Lamp"), "warming up".to_owned());
        let writes = *house.writes.lock().expect("lock");
        assert_eq!(release(&house, &released(), &journal).await.expect("asked").status, Status::InProgress);
        assert_eq!(*house.writes.lock().expect("lock"), writes);
    }

    #[tokio::test]
    async fn a_first_value_that_cannot_be_read_is_named_and_the_rest_goes_on() {
        let (house, journal) = (House::new(&ROOMS), MemoryJournal::default());
        let odd = First::from([(Key::new("hall", "Door"), json!({ "Angle": 12 }))]);
        journal.keep(&contained(), House::NAME, &odd.into()).await.expect("kept");
        converge_reversibly(&house, &contained(), &journal).await.expect("contained");
        let outcome = release(&house, &released(), &journal).await.expect("answered");
        assert_eq!(outcome.status, Status::Unsupported);
        let reason = outcome.reason.expect("a reason");
        assert!(reason.contains("Door of hall is not restored") && reason.contains("\"Angle\":12"), "{reason}");
        assert_eq!(house.state()[&Key::new("hall", "Lamp")], "lit");
    }

    #[tokio::test]
    async fn an_inspection_of_what_is_still_contained_says_failed_and_changes_nothing() {
        let (house, journal) = (House::new(&ROOMS), MemoryJournal::default());
        converge_reversibly(&house, &contained(), &journal).await.expect("contained");
        let kept = house.state();
        assert_eq!(inspect_release(&house, &released(), &journal).await.expect("read").status, Status::Failed);
        assert_eq!(house.state(), kept);
        release(&house, &released(), &journal).await.expect("released");
        assert_eq!(inspect_release(&house, &released(), &journal).await.expect("read").status, Status::Done);
    }

    use proptest::prelude::*;

    /// Rooms with or without a lamp and a door, each in any state, and a seal that somebody has put on some of them.
    fn houses() -> impl Strategy<Value = State<String>> {
        let rooms = prop::sample::select(vec!["hall", "attic", "cellar", "a|b"]);
        let things = prop::sample::select(vec!["Lamp", "Door", "Seal"]);
        let values = prop::sample::select(vec!["lit", "off", "ajar", "locked", "sealed", "broken", ""]);
        prop::collection::btree_map(
            (rooms, things).prop_map(|(room, thing)| Key::new(room, thing)),
            values.prop_map(ToOwned::to_owned),
            0..12,
        )
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
    }

    proptest! {
        #[test]
        fn contained_and_released_again_and_again_a_house_is_what_it_was(before in houses(), cases in 1..4_usize) {
            let (house, journal) = (House { state: Mutex::new(before.clone()), ..House::default() }, MemoryJournal::default());
            for case in 0..cases {
                let case_id = format!("c-{case}");
                let target = Target { case_id: case_id.clone(), ..contained() };
                run(converge_reversibly(&house, &target, &journal)).expect("contained");
                run(converge_reversibly(&house, &target, &journal)).expect("a re-run overwrites no first value");
                let target = Target { case_id, ..released() };
                let outcome = run(release(&house, &target, &journal)).expect("released");
                prop_assert!(matches!(outcome.status, Status::Done | Status::NotApplicable));
                prop_assert_eq!(&house.state(), &before);
                let writes = *house.writes.lock().expect("lock");
                let again = run(release(&house, &target, &journal)).expect("released");
                prop_assert_eq!((again.changes.len(), *house.writes.lock().expect("lock")), (0, writes));
            }
        }

        #[test]
        fn a_plain_second_run_ends_where_it_should_whatever_the_first_was_refused(
            before in houses(),
            jammed in prop::collection::btree_set((0..12_usize, prop::bool::ANY), 0..8),
        ) {
            let (house, journal) = (House { state: Mutex::new(before.clone()), ..House::default() }, MemoryJournal::default());
            let jam = |release: bool| {
                let seals = before.keys().map(|key| Key::new(&key.resource, "Seal"));
                let keys: BTreeSet<Key> = before.keys().cloned().chain(seals).collect();
                let of_way = jammed.iter().filter(|(_, way)| *way == release);
                *house.jammed.lock().expect("lock") = of_way.filter_map(|(n, _)| keys.iter().nth(*n).cloned()).collect();
            };
            jam(false);
            let first_try = run(converge_reversibly(&house, &contained(), &journal));
            prop_assert!(first_try.is_ok() || !house.jammed.lock().expect("lock").is_empty());
            jam(true);
            let released_half = run(release(&house, &released(), &journal));
            prop_assert!(released_half.is_ok() || matches!(released_half, Err(Error::NotReleased(_))));
            house.jammed.lock().expect("lock").clear();
            run(release(&house, &released(), &journal)).expect("released");
            prop_assert_eq!(house.state(), before);
        }
    }
}

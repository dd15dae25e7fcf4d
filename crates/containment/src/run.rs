//! What both directions of the loop have in common: write, read back until it shows, and say how it stands.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use serde::Serialize;

use crate::step::{diff, json};
use crate::{Change, Error, First, Found, Goal, Key, Outcome, Result, State, Status, Step, Target, Writes};

/// Which way the loop goes.
pub(crate) trait Direction<S: Step>: Sync {
    /// The reason to give where nothing had to be changed.
    const ALREADY: &'static str;

    /// The values that the outcome's changes count from; what this run found, for every other key.
    fn first(&self) -> &First;

    /// The state to end in.
    fn goal(&self, step: &S, target: &Target, found: &Found<S::Value, S::Facts>) -> Goal<S::Value>;

    /// Whether AWS is on its way from a value to the wanted one already.
    fn is_under_way(&self, step: &S, now: &S::Value, wanted: Option<&S::Value>) -> bool;

    /// Moves the world to the goal.
    fn write(
        &self,
        step: &S,
        target: &Target,
        found: &Found<S::Value, S::Facts>,
        goal: &State<S::Value>,
    ) -> impl Future<Output = Writes> + Send;

    /// AWS after the write.
    fn read(&self, step: &S, target: &Target) -> impl Future<Output = Result<Found<S::Value, S::Facts>>> + Send;

    /// The error that carries the outcome of a failure.
    fn missed(outcome: Outcome) -> Error;
}

/// One run of a step in one direction.
pub(crate) struct Run<'a, S, D> {
    pub step: &'a S,
    pub target: &'a Target,
    pub direction: D,
    /// What the reader of the outcome must know beside what the step says.
    pub residual_risk: Vec<String>,
}

/// How long AWS may take to show a change that it has accepted, read after read (aws-behaviour#eventual-consistency).
const READ_BACK: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// After so long, a change that AWS neither shows nor has accepted is missed.
const SHOWN_WITHIN: Duration = Duration::from_secs(7);

impl<S: Step, D: Direction<S>> Run<'_, S, D> {
    /// Writes what is to be written, and reads it back.
    pub async fn carry_out(self, found: Found<S::Value, S::Facts>, goal: Goal<S::Value>) -> Result<Outcome> {
        if self.is_under_way(&found.state, &goal.state) {
            return self.conclude(&found.state, &found.state, goal, None);
        }
        let writes = self.direction.write(self.step, self.target, &found, &goal.state).await;
        let (after, goal) = self.read_back(&writes).await?;
        self.conclude(&found.state, &after, goal, Some(writes))
    }

    /// Whether there is nothing to write: AWS is there, or on its way with everything that differs from the goal.
    pub fn is_under_way(&self, found: &State<S::Value>, goal: &State<S::Value>) -> bool {
        diff(found, goal)
            .iter()
            .all(|key| found.get(key).is_some_and(|value| self.direction.is_under_way(self.step, value, goal.get(key))))
    }

    async fn read_back(&self, writes: &Writes) -> Result<(State<S::Value>, Goal<S::Value>)> {
        let mut waited = Duration::ZERO;
        for delay in READ_BACK.into_iter().chain(std::iter::repeat(Duration::from_secs(4))) {
            tokio::time::sleep(delay).await;
            waited += delay;
            let after = self.direction.read(self.step, self.target).await?;
            let goal = self.direction.goal(self.step, self.target, &after);
            let given_up = !writes.failures.is_empty() || writes.waiting || waited > SHOWN_WITHIN;
            let enough = match self.is_under_way(&after.state, &goal.state) {
                true => waited >= writes.settles_within,
                false => given_up,
            };
            if enough || after.state == goal.state {
                return Ok((after.state, goal));
            }
        }
        unreachable!("the delays never end")
    }

    /// Says how things stand, from what was found first and what was read last; `writes` is absent where nothing had to be
    /// written.
    pub fn conclude(
        self,
        found: &State<S::Value>,
        after: &State<S::Value>,
        goal: Goal<S::Value>,
        writes: Option<Writes>,
    ) -> Result<Outcome> {
        let wrote = writes.is_some();
        let mut writes = writes.unwrap_or_default();
        let open = diff(after, &goal.state);
        let changes = changes(self.direction.first(), found, after)?;
        let is_under_way = writes.waiting || self.is_under_way(after, &goal.state);
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
            format!("{} of {} is {}, wanted {}", key.attribute, key.resource, shown(after), shown(&goal.state))
        });
        let (status, reason) = if open.is_empty() {
            match (goal.unsupported.is_empty(), goal.not_applicable) {
                (false, _) => (Status::Unsupported, Some(goal.unsupported.join("; "))),
                (true, Some(why)) if changes.is_empty() => (Status::NotApplicable, Some(why)),
                _ if wrote => (Status::Done, None),
                _ => (Status::Done, Some(D::ALREADY.to_owned())),
            }
        } else if is_under_way && writes.failures.is_empty() {
            (Status::InProgress, Some(left.collect::<Vec<_>>().join("; ")))
        } else if refused {
            (Status::Unsupported, Some(failures.chain(goal.unsupported.iter().cloned()).collect::<Vec<_>>().join("; ")))
        } else {
            (
                Status::Failed,
                Some(left.chain(failures).chain(goal.unsupported.iter().cloned()).collect::<Vec<_>>().join("; ")),
            )
        };
        let residual_risk = [goal.residual_risk, writes.residual_risk, self.residual_risk].concat();
        let outcome = Outcome { changes, residual_risk, ..Outcome::new(S::NAME, status, reason) };
        match status {
            Status::Failed if wrote => Err(D::missed(outcome)),
            _ => Ok(outcome),
        }
    }
}

/// The answer of a dry run.
pub(crate) fn planned<S: Step>(found: &State<S::Value>, goal: Goal<S::Value>) -> Outcome {
    let changes: Vec<Change> = diff(found, &goal.state)
        .into_iter()
        .map(|key| Change {
            before: json(found.get(&key)).unwrap_or_default(),
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

/// The case's changes: from the journaled first value, or else from what this run found, to what AWS shows now. What
/// drifted in between, and is back at its first value now, is this run's change.
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

//! Ends the Session Manager sessions to the host. A session stays on the host although its network is cut, because the
//! agent's connection outlives a change of groups (aws-behaviour#automatic-tracking, #hostile-host).
//!
//! An ended session can't be resumed, so there is nothing to undo. The case keeps the owners: the attacker may act as
//! one of them.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_ssm::Client;
use aws_sdk_ssm::primitives::DateTimeFormat;
use aws_sdk_ssm::types::{Session, SessionFilter, SessionFilterKey, SessionState, SessionStatus};
use containment::{Error, Found, Goal, Irreversible, Journaled, Key, Result, State, Step, Target, Writes};
use futures::{StreamExt, stream};
use serde::Serialize;

/// The step. Reads the active sessions to the instance by `DescribeSessions`; ends each by `TerminateSession`.
#[derive(Debug, Clone)]
pub struct TerminateSessions {
    ssm: Client,
}

/// A session to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Opened {
    /// Who opened it: an ARN, in which a role's session has a name that its user chose.
    pub owner: String,
    /// When, in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_date: Option<String>,
    /// `Connected`, `Disconnected`, `Terminating`, …
    pub status: String,
}

const SESSION: &str = "Session";

/// Others have chosen this text: no more of it goes into the journal and the report. The ARN of a role's session is
/// shorter, since AWS limits its parts.
const OWNER_CHARACTERS: usize = 200;

/// A session mostly ends within seconds: the loop waits for it rather than the workflow.
const SETTLES_WITHIN: Duration = Duration::from_secs(15);

/// Systems Manager's calls share a small rate.
const AT_ONCE: usize = 4;

impl TerminateSessions {
    /// The step in the configuration's Region.
    pub fn new(aws: &SdkConfig) -> Self {
        TerminateSessions { ssm: Client::new(aws) }
    }

    async fn end(&self, session: &str) -> Result<()> {
        let sent = self.ssm.terminate_session().session_id(session).send().await;
        sent.map(|_| ()).map_err(Error::aws("ssm:TerminateSession", session))
    }
}

fn opened(session: &Session) -> Option<(Key, Opened)> {
    let status = session.status().map_or("unknown", SessionStatus::as_str);
    if [SessionStatus::Terminated.as_str(), SessionStatus::Failed.as_str()].contains(&status) {
        return None;
    }
    let opened = Opened {
        owner: session.owner().unwrap_or("unknown").chars().take(OWNER_CHARACTERS).collect(),
        start_date: session.start_date().and_then(|at| at.fmt(DateTimeFormat::DateTime).ok()),
        status: status.to_owned(),
    };
    Some((Key::new(session.session_id()?, SESSION), opened))
}

impl Step for TerminateSessions {
    type Value = Opened;
    type Facts = ();
    const NAME: &'static str = "terminate-sessions";

    async fn read(&self, target: &Target) -> Result<Found<Opened, ()>> {
        let to_host = SessionFilter::builder().key(SessionFilterKey::TargetId).value(&target.instance_id).build();
        let to_host =
            to_host.map_err(|error| Error::Misconfigured(format!("the filter of DescribeSessions: {error}")))?;
        let call = self.ssm.describe_sessions().state(SessionState::Active).filters(to_host);
        let pages = call.into_paginator().items().send();
        let sessions: Vec<Session> =
            pages.try_collect().await.map_err(Error::aws("ssm:DescribeSessions", &target.instance_id))?;
        // If the filter were ignored, no session to another host must end.
        let ours = sessions.iter().filter(|session| session.target() == Some(&target.instance_id));
        Ok(Found { state: ours.filter_map(opened).collect(), facts: () })
    }

    fn contained(&self, _: &Target, found: &Found<Opened, ()>, _: &Journaled) -> Goal<Opened> {
        let mut goal = Goal::new(State::new());
        if found.state.is_empty() {
            goal.not_applicable = Some("no Session Manager session to the instance is open".to_owned());
        }
        goal
    }

    fn accepted(&self, opened: &Opened) -> bool {
        opened.status == SessionStatus::Terminating.as_str()
    }

    async fn write(&self, _: &Target, found: &Found<Opened, ()>, _: &State<Opened>) -> Writes {
        let mut writes = Writes { settles_within: SETTLES_WITHIN, ..Writes::default() };
        let open: Vec<(&Key, &Opened)> = found.state.iter().filter(|(_, opened)| !self.accepted(opened)).collect();
        let calls: Vec<_> = open.iter().map(|(key, _)| self.end(&key.resource)).collect();
        let results: Vec<_> = stream::iter(calls).buffer_unordered(AT_ONCE).collect().await;
        for result in results {
            // If its user ends it at the same moment, the read back finds it gone, whatever the call said.
            writes.note(result);
        }
        let owners: BTreeSet<&str> = open.iter().map(|(_, opened)| opened.owner.as_str()).collect();
        let owners = owners.into_iter().collect::<Vec<_>>().join(", ");
        writes.residual_risk.push(format!(
            "programs that a session started on the host keep running; whoever may call ssm:StartSession can open \
             another session while the host's agent is connected, and the attacker may be acting as a session's \
             owner: {owners}"
        ));
        writes
    }
}

impl Irreversible for TerminateSessions {}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ssm::operation::describe_sessions::DescribeSessionsOutput;
    use aws_sdk_ssm::operation::terminate_session::{TerminateSessionError, TerminateSessionOutput};
    use aws_sdk_ssm::primitives::DateTime;
    use aws_smithy_mocks::{Rule, RuleMode, mock, mock_client};
    use containment::{MemoryJournal, Status, converge, inspect};
    use std::sync::Mutex;

    const ALICE: &str = "arn:aws:sts::123456789012:assumed-role/admin/alice";

    fn step(rules: &[&Rule]) -> TerminateSessions {
        TerminateSessions { ssm: mock_client!(aws_sdk_ssm, RuleMode::MatchAny, rules) }
    }

    fn session(id: &str, status: SessionStatus) -> Session {
        Session::builder()
            .session_id(id)
            .target("i-0123456789abcdef0")
            .owner(ALICE)
            .status(status)
            .start_date(DateTime::from_secs(1_795_230_000))
            .build()
    }

    /// What DescribeSessions shows, call after call; the last of it for good.
    fn shows(answers: &[&[Session]]) -> Rule {
        let answers: Vec<Vec<Session>> = answers.iter().map(|sessions| sessions.to_vec()).collect();
        let seen = Mutex::new(0);
        mock!(Client::describe_sessions)
            .match_requests(|r| {
                let filter = &r.filters()[0];
                r.state() == Some(&SessionState::Active)
                    && (filter.key(), filter.value()) == (&SessionFilterKey::TargetId, "i-0123456789abcdef0")
            })
            .then_compute_output(move |_| {
                let mut seen = seen.lock().expect("not poisoned");
                let sessions = answers[(*seen).min(answers.len() - 1)].clone();
                *seen += 1;
                DescribeSessionsOutput::builder().set_sessions(Some(sessions)).build()
            })
    }

    fn ends(id: &'static str) -> Rule {
        mock!(Client::terminate_session)
            .match_requests(move |r| r.session_id() == Some(id))
            .then_output(|| TerminateSessionOutput::builder().build())
    }

    #[tokio::test(start_paused = true)]
    async fn every_session_to_the_host_is_ended_and_its_owner_is_kept() {
        let open = [session("alice-1", SessionStatus::Connected), session("bob-2", SessionStatus::Disconnected)];
        let (sessions, alice, bob) = (shows(&[&open, &[]]), ends("alice-1"), ends("bob-2"));
        let outcome = converge(&step(&[&sessions, &alice, &bob]), &Target::example(), &MemoryJournal::default()).await;
        let outcome = outcome.expect("ended");
        assert_eq!((outcome.status, alice.num_calls(), bob.num_calls()), (Status::Done, 1, 1));
        let change = &outcome.changes[0];
        assert_eq!((change.resource.as_str(), change.attribute.as_str()), ("alice-1", "Session"));
        assert_eq!(
            (&change.before["Owner"], &change.before["StartDate"]),
            (&ALICE.into(), &"2026-11-21T03:00:00Z".into())
        );
        assert!(change.after.is_null());
        assert!(outcome.residual_risk[0].contains(ALICE) && outcome.residual_risk[0].contains("ssm:StartSession"));
    }

    #[tokio::test]
    async fn without_a_session_the_step_does_not_apply() {
        let (none, journal) = (shows(&[&[]]), MemoryJournal::default());
        let step = step(&[&none]);
        let outcome = converge(&step, &Target::example(), &journal).await.expect("read");
        assert_eq!((outcome.status, outcome.changes.len()), (Status::NotApplicable, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_run_ends_nothing_and_still_shows_what_was_ended() {
        let (sessions, ended) = (shows(&[&[session("alice-1", SessionStatus::Connected)], &[]]), ends("alice-1"));
        let (step, journal) = (step(&[&sessions, &ended]), MemoryJournal::default());
        let first = converge(&step, &Target::example(), &journal).await.expect("ended");
        let second = converge(&step, &Target::example(), &journal).await.expect("nothing to do");
        let verified = inspect(&step, &Target::example(), &journal).await.expect("read");
        assert_eq!((second.status, verified.status, ended.num_calls()), (Status::Done, Status::Done, 1));
        assert_eq!((&second.changes, &verified.changes), (&first.changes, &first.changes));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_its_user_ends_at_the_same_moment_is_ended() {
        let sessions = shows(&[&[session("alice-1", SessionStatus::Connected)], &[]]);
        let refused = mock!(Client::terminate_session).then_error(|| {
            let meta = aws_sdk_ssm::error::ErrorMetadata::builder().code("ValidationException").build();
            TerminateSessionError::generic(meta)
        });
        let outcome = converge(&step(&[&sessions, &refused]), &Target::example(), &MemoryJournal::default()).await;
        assert_eq!(outcome.expect("gone").status, Status::Done);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_stays_open_fails_the_step_by_name() {
        let sessions = shows(&[&[session("alice-1", SessionStatus::Connected)]]);
        let refused = mock!(Client::terminate_session).then_error(|| {
            let meta = aws_sdk_ssm::error::ErrorMetadata::builder().code("AccessDeniedException").build();
            TerminateSessionError::generic(meta)
        });
        let error = converge(&step(&[&sessions, &refused]), &Target::example(), &MemoryJournal::default()).await;
        let text = error.expect_err("still open").to_string();
        assert!(text.contains("Session of alice-1") && text.contains("ssm:TerminateSession on alice-1"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_terminating_is_left_alone() {
        let (sessions, ended) = (shows(&[&[session("alice-1", SessionStatus::Terminating)]]), ends("alice-1"));
        let step = step(&[&sessions, &ended]);
        let outcome = converge(&step, &Target::example(), &MemoryJournal::default()).await.expect("moving");
        assert_eq!((outcome.status, ended.num_calls()), (Status::InProgress, 0));
    }

    #[tokio::test]
    async fn a_dry_run_names_the_sessions_and_ends_none() {
        let (sessions, ended) = (shows(&[&[session("alice-1", SessionStatus::Connected)]]), ends("alice-1"));
        let target = Target { dry_run: true, ..Target::example() };
        let outcome = converge(&step(&[&sessions, &ended]), &target, &MemoryJournal::default()).await.expect("planned");
        assert_eq!((outcome.status, outcome.changes.len(), ended.num_calls()), (Status::Planned, 1, 0));
    }

    #[tokio::test]
    async fn sessions_to_another_host_and_ended_ones_do_not_count_and_a_long_owner_is_cut() {
        let elsewhere = Session::builder().session_id("carol-3").target("i-0fedcba9876543210").build();
        let ended = session("dave-4", SessionStatus::Terminated);
        let long =
            Session::builder().session_id("eve-5").target("i-0123456789abcdef0").owner("é\n".repeat(500)).build();
        let found = step(&[&shows(&[&[elsewhere, ended, long]])]).read(&Target::example()).await.expect("read");
        let owners: Vec<(&str, usize)> =
            found.state.iter().map(|(key, opened)| (key.resource.as_str(), opened.owner.chars().count())).collect();
        assert_eq!(owners, [("eve-5", OWNER_CHARACTERS)]);
    }

    #[tokio::test]
    async fn every_page_of_sessions_is_read() {
        let pages = mock!(Client::describe_sessions).then_compute_output(|r| {
            let (id, next) = match r.next_token() {
                None => ("alice-1", Some("more".to_owned())),
                Some(_) => ("bob-2", None),
            };
            let sessions = session(id, SessionStatus::Connected);
            DescribeSessionsOutput::builder().sessions(sessions).set_next_token(next).build()
        });
        let found = step(&[&pages]).read(&Target::example()).await.expect("read");
        assert_eq!(found.state.len(), 2);
    }
}

//! Tags the instance, its volumes and the case's snapshots, for people to search. Tags are never authority
//! (aws-behaviour#tags).

use std::collections::{BTreeMap, BTreeSet};

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, Tag, TagDescription};
use containment::{
    Error, First, Found, Goal, Journaled, Key, Result, Reversible, State, Step, Target, Writes, first_values,
};
use futures::future::{join_all, try_join_all};

/// The step. Reads and sets the tags that [`Target::incident_tags`] names, and no others; a release removes them, and
/// leaves one that says so.
#[derive(Debug, Clone)]
pub struct TagResources {
    ec2: Client,
}

/// On the instance, after a release: the case that it was released from. The next containment removes it.
const RELEASED: &str = "CordonReleased";

/// The names that any run may set or remove.
const NAMES: [&str; 6] = ["CordonCase", RELEASED, "Evidence", "IncidentTicket", "Owner", "SecurityIncidentStatus"];

/// A filter takes 200 values.
const IDS_A_CALL: usize = 200;

/// Each tag is an attribute of its own, so that the journal has those that this case sets and no others.
fn key(resource: &str, tag: &str) -> Key {
    Key::new(resource, format!("Tag {tag}"))
}

fn tag_of(key: &Key) -> Option<&str> {
    key.attribute.strip_prefix("Tag ")
}

/// Tags by name and value, and the resources that are to get or lose them: most resources share the same tags, so one
/// call serves them all.
type Batches<'a> = BTreeMap<BTreeSet<(&'a str, &'a str)>, Vec<String>>;

/// The tags of one state that differ from the other's.
fn beyond<'a>(
    one: &'a State<String>,
    other: &State<String>,
    differs: impl Fn(&String, Option<&String>) -> bool,
) -> Batches<'a> {
    let mut of_resource: BTreeMap<&str, BTreeSet<(&str, &str)>> = BTreeMap::new();
    for (key, value) in one.iter().filter(|(key, value)| differs(value, other.get(*key))) {
        if let Some(tag) = tag_of(key) {
            of_resource.entry(&key.resource).or_default().insert((tag, value));
        }
    }
    let mut batches = Batches::new();
    for (resource, tags) in of_resource {
        batches.entry(tags).or_default().push(resource.to_owned());
    }
    batches
}

fn tags(of: &BTreeSet<(&str, &str)>) -> Vec<Tag> {
    of.iter().map(|(name, value)| Tag::builder().key(*name).value(*value).build()).collect()
}

impl TagResources {
    /// The step in the configuration's Region.
    pub fn new(aws: &SdkConfig) -> Self {
        TagResources { ec2: Client::new(aws) }
    }

    async fn tag(&self, ids: &[String], tags: &[Tag]) -> Result<()> {
        let call = self.ec2.create_tags().set_resources(Some(ids.to_vec())).set_tags(Some(tags.to_vec()));
        call.send().await.map(|_| ()).map_err(Error::aws("ec2:CreateTags", ids.join(", ")))
    }

    /// By name and value: a tag that somebody has changed meanwhile stays.
    async fn untag(&self, ids: &[String], tags: &[Tag]) -> Result<()> {
        let call = self.ec2.delete_tags().set_resources(Some(ids.to_vec())).set_tags(Some(tags.to_vec()));
        call.send().await.map(|_| ()).map_err(Error::aws("ec2:DeleteTags", ids.join(", ")))
    }

    async fn tags_of(&self, ids: &[String]) -> Result<Vec<TagDescription>> {
        let of_them = Filter::builder().name("resource-id").set_values(Some(ids.to_vec())).build();
        let pages = self.ec2.describe_tags().filters(of_them).into_paginator().items().send();
        pages.try_collect().await.map_err(Error::aws("ec2:DescribeTags", ids.join(", ")))
    }
}

impl Step for TagResources {
    /// A tag's value.
    type Value = String;
    /// The resources.
    type Facts = BTreeSet<String>;
    const NAME: &'static str = "tag-resources";

    async fn read(&self, target: &Target) -> Result<Found<String, BTreeSet<String>>> {
        let instance = [target.instance_id.clone()];
        let (own, volumes, snapshots) = futures::try_join!(
            self.tags_of(&instance),
            instance::volumes(&self.ec2, target),
            snapshots::snapshots_of_case(&self.ec2, target)
        )?;
        let own = own.iter().filter_map(|t| Some((t.key()?, t.value().unwrap_or_default())));
        let mut found = Found { state: State::new(), facts: BTreeSet::from(instance.clone()) };
        found.state.extend(ours(&target.instance_id, own));
        let volumes = volumes.iter().filter_map(|v| Some((v.volume_id()?, v.tags())));
        let snapshots = snapshots.iter().filter_map(|s| Some((s.snapshot_id()?, s.tags())));
        for (id, tags) in volumes.chain(snapshots) {
            let pairs = tags.iter().filter_map(|tag| Some((tag.key()?, tag.value().unwrap_or_default())));
            found.state.extend(ours(id, pairs));
            found.facts.insert(id.to_owned());
        }
        Ok(found)
    }

    fn contained(&self, target: &Target, found: &Found<String, BTreeSet<String>>, _: &Journaled) -> Goal<String> {
        let mut goal = Goal::new(found.state.clone());
        for (tag, value) in target.incident_tags() {
            goal.state.extend(found.facts.iter().map(|id| (key(id, &tag), value.clone())));
        }
        goal.state.remove(&key(&target.instance_id, RELEASED));
        goal
    }

    async fn write(&self, _: &Target, found: &Found<String, BTreeSet<String>>, goal: &State<String>) -> Writes {
        let lacking = beyond(goal, &found.state, |value, has| has != Some(value));
        let surplus = beyond(&found.state, goal, |_, wanted| wanted.is_none());
        let set = lacking.iter().map(|(batch, ids)| async move {
            let tags = tags(batch);
            match self.tag(ids, &tags).await {
                // The others get their tags even if one resource takes no more, or is gone.
                Err(error) if ids.len() > 1 && !error.is_transient() => {
                    join_all(ids.iter().map(|id| self.tag(std::slice::from_ref(id), &tags))).await
                }
                result => vec![result],
            }
        });
        let taken = surplus.iter().map(|(batch, ids)| async move {
            let tags = tags(batch);
            match self.untag(ids, &tags).await {
                Err(error) if ids.len() > 1 && !error.is_transient() => {
                    join_all(ids.iter().map(|id| self.untag(std::slice::from_ref(id), &tags))).await
                }
                result => vec![result],
            }
        });
        let mut writes = Writes::default();
        let (set, taken) = futures::join!(join_all(set), join_all(taken));
        for result in set.into_iter().chain(taken).flatten() {
            writes.note(result);
        }
        writes
    }
}

impl Reversible for TagResources {
    /// The tags of everything that the journal names, wherever it is now: a detached volume keeps its tags. Snapshots
    /// are evidence, and keep theirs too.
    async fn read_journaled(&self, target: &Target, first: &First) -> Result<Found<String, BTreeSet<String>>> {
        let journaled = first.keys().filter(|key| !is_evidence(key)).map(|key| key.resource.clone());
        let ids: BTreeSet<String> = journaled.chain([target.instance_id.clone()]).collect();
        let all: Vec<String> = ids.iter().cloned().collect();
        let described = try_join_all(all.chunks(IDS_A_CALL).map(|ids| self.tags_of(ids))).await?;
        let mut found = Found { state: State::new(), facts: ids };
        for tag in described.iter().flatten() {
            let (Some(id), Some(name)) = (tag.resource_id(), tag.key()) else { continue };
            found.state.extend(ours(id, [(name, tag.value().unwrap_or_default())]));
        }
        Ok(found)
    }

    /// Somebody has changed a tag that has neither Cordon's value nor its first one; it is left alone. The ticket and
    /// the owner of the containment are no longer known: these two go back to their first values, whoever wrote them
    /// last.
    fn released(&self, target: &Target, found: &Found<String, BTreeSet<String>>, first: &First) -> Goal<String> {
        let mut goal = Goal::new(found.state.clone());
        let (values, unreadable) = first_values::<String>(first);
        goal.unsupported = unreadable;
        let given = target.incident_tags();
        for (key, value) in values.into_iter().filter(|(key, _)| !is_evidence(key)) {
            let Some(tag) = tag_of(&key).filter(|tag| *tag != RELEASED) else { continue };
            let now = found.state.get(&key);
            let fixed = given.get(tag).filter(|_| !matches!(tag, "IncidentTicket" | "Owner"));
            if let (Some(now), Some(fixed)) = (now, fixed)
                && now != fixed
                && Some(now) != value.as_ref()
            {
                let before = value.map_or("absent".to_owned(), |value| format!("{value:?}"));
                goal.residual_risk.push(format!(
                    "the tag {tag} of {} is {now:?} now, which Cordon did not set, and is left alone; its first value \
                     was {before}",
                    key.resource
                ));
                continue;
            }
            match value {
                Some(value) => _ = goal.state.insert(key, value),
                None => _ = goal.state.remove(&key),
            }
        }
        goal.state.insert(key(&target.instance_id, RELEASED), target.case_id.clone());
        goal
    }
}

fn is_evidence(key: &Key) -> bool {
    key.resource.starts_with("snap-")
}

/// Those of a resource's tags that Cordon may set.
fn ours<'a>(id: &str, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> State<String> {
    let ours = tags.into_iter().filter(|(name, _)| NAMES.contains(name));
    ours.map(|(name, value)| (key(id, name), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::operation::create_tags::CreateTagsOutput;
    use aws_sdk_ec2::operation::delete_tags::DeleteTagsOutput;
    use aws_sdk_ec2::operation::describe_tags::DescribeTagsOutput;
    use aws_smithy_mocks::{RuleMode, mock, mock_client};
    use serde_json::{Value, json};

    const ID: &str = "i-0123456789abcdef0";

    fn target() -> Target {
        Target { incident_ticket: Some("INC-7".to_owned()), ..Target::example() }
    }

    fn found(resources: &[(&str, &[(&str, &str)])]) -> Found<String, BTreeSet<String>> {
        let state = resources.iter().flat_map(|(id, tags)| ours(id, tags.iter().copied()));
        Found { state: state.collect(), facts: resources.iter().map(|(id, _)| (*id).to_owned()).collect() }
    }

    fn nothing_called() -> TagResources {
        TagResources { ec2: mock_client!(aws_sdk_ec2, []) }
    }

    /// What the journal has once a containment has changed this.
    fn first(before: &Found<String, BTreeSet<String>>, goal: &Goal<String>) -> First {
        let changed =
            goal.state.keys().chain(before.state.keys()).filter(|key| before.state.get(key) != goal.state.get(key));
        changed.map(|key| (key.clone(), before.state.get(key).map_or(Value::Null, |value| json!(value)))).collect()
    }

    #[test]
    fn other_tags_are_neither_read_nor_planned_and_neither_is_an_owner_that_was_not_given() {
        let found = found(&[("i-1", &[("Name", "web"), ("Owner", "team-a")])]);
        assert_eq!(found.state, State::from([(key("i-1", "Owner"), "team-a".into())]));
        let goal = nothing_called().contained(&target(), &found, &Journaled::default());
        assert_eq!(goal.state[&key("i-1", "Owner")], "team-a");
        assert!(!first(&found, &goal).contains_key(&key("i-1", "Owner")), "so that no release touches it");
    }

    #[test]
    fn every_tag_that_a_run_can_set_is_among_those_that_are_read() {
        let all = Target { owner: Some("o".into()), ..target() }.incident_tags();
        assert!(all.keys().all(|name| NAMES.contains(&name.as_str())) && all.len() + 1 == NAMES.len());
    }

    #[tokio::test]
    async fn the_others_get_their_tags_even_if_one_resource_takes_no_more() {
        let full =
            mock!(Client::create_tags).match_requests(|r| r.resources().contains(&"i-1".to_owned())).then_error(|| {
                let meta = aws_sdk_ec2::error::ErrorMetadata::builder().code("TagLimitExceeded").build();
                aws_sdk_ec2::operation::create_tags::CreateTagsError::generic(meta)
            });
        let tagged = mock!(Client::create_tags)
            .match_requests(|r| r.resources() == ["vol-1"])
            .then_output(|| CreateTagsOutput::builder().build());
        let step = TagResources { ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&full, &tagged]) };
        let found = found(&[("i-1", &[]), ("vol-1", &[])]);
        let goal = step.contained(&target(), &found, &Journaled::default());
        assert_eq!(step.write(&target(), &found, &goal.state).await.failures.len(), 1);
        assert_eq!(tagged.num_calls(), 1);
    }

    #[tokio::test]
    async fn resources_that_lack_the_same_tags_share_a_call_and_tags_already_there_are_not_sent() {
        let rule = mock!(Client::create_tags)
            .match_requests(|r| match r.resources().len() {
                2 => r.tags().len() == 4,
                _ => r.resources() == ["vol-2"] && r.tags().len() == 3,
            })
            .then_output(|| CreateTagsOutput::builder().build());
        let step = TagResources { ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&rule]) };
        let found = found(&[("i-1", &[]), ("vol-1", &[]), ("vol-2", &[("Evidence", "Yes")])]);
        let goal = step.contained(&target(), &found, &Journaled::default());
        assert!(step.write(&target(), &found, &goal.state).await.failures.is_empty());
        assert_eq!(rule.num_calls(), 2);
    }

    #[test]
    fn a_release_restores_each_tag_removes_what_was_absent_and_tags_the_release() {
        let before = found(&[(ID, &[("Owner", "team-a")]), ("vol-1", &[("Evidence", "No")]), ("snap-1", &[])]);
        let target = Target { owner: Some("response".into()), ..target() };
        let goal = nothing_called().contained(&target, &before, &Journaled::default());
        let first = first(&before, &goal);
        let contained = Found { state: goal.state, facts: before.facts.clone() };
        let without_owner = Target { owner: None, incident_ticket: None, ..target };
        let goal = nothing_called().released(&without_owner, &contained, &first);
        let mut wanted = before.state.clone();
        wanted.insert(key(ID, RELEASED), "c-1".into());
        wanted.extend(contained.state.clone().into_iter().filter(|(key, _)| is_evidence(key)));
        assert_eq!(goal.state, wanted);
        assert!(goal.residual_risk.is_empty() && goal.unsupported.is_empty());
        let again = Found { state: goal.state.clone(), facts: before.facts };
        assert_eq!(nothing_called().released(&without_owner, &again, &first), goal, "a second release changes nothing");
    }

    #[test]
    fn a_tag_that_somebody_has_changed_since_is_left_alone_and_named() {
        let before = found(&[(ID, &[])]);
        let mut contained = nothing_called().contained(&target(), &before, &Journaled::default());
        let first = first(&before, &contained);
        contained.state.insert(key(ID, "SecurityIncidentStatus"), "Closed".into());
        let contained = Found { state: contained.state, facts: before.facts };
        let goal = nothing_called().released(&target(), &contained, &first);
        assert_eq!(goal.state[&key(ID, "SecurityIncidentStatus")], "Closed");
        assert!(
            goal.residual_risk[0].contains("is \"Closed\" now")
                && goal.residual_risk[0].contains("first value was absent")
        );
        assert_eq!(goal.state.len(), 2, "the others are gone");
    }

    #[test]
    fn a_later_containment_removes_the_tag_of_a_release_and_its_own_release_leaves_one() {
        let released = found(&[(ID, &[(RELEASED, "c-1")])]);
        let later = Target { case_id: "c-2".into(), ..target() };
        let goal = nothing_called().contained(&later, &released, &Journaled::default());
        assert!(!goal.state.contains_key(&key(ID, RELEASED)));
        let first = first(&released, &goal);
        let contained = Found { state: goal.state, facts: released.facts };
        let goal = nothing_called().released(&later, &contained, &first);
        assert_eq!(goal.state, State::from([(key(ID, RELEASED), "c-2".into())]));
    }

    #[tokio::test]
    async fn a_tag_is_taken_away_by_name_and_value_and_a_detached_volume_loses_its_tags_as_well() {
        let described = mock!(Client::describe_tags)
            .match_requests(|r| r.filters()[0].values() == [ID, "vol-1"])
            .then_output(|| {
                let tag = |id: &str| TagDescription::builder().resource_id(id).key("Evidence").value("Yes").build();
                DescribeTagsOutput::builder().tags(tag(ID)).tags(tag("vol-1")).build()
            });
        let taken = mock!(Client::delete_tags)
            .match_requests(|r| {
                let tag = &r.tags()[0];
                r.resources() == [ID, "vol-1"] && (tag.key(), tag.value()) == (Some("Evidence"), Some("Yes"))
            })
            .then_output(|| DeleteTagsOutput::builder().build());
        let marked = mock!(Client::create_tags)
            .match_requests(|r| r.resources() == [ID] && r.tags()[0].key() == Some(RELEASED))
            .then_output(|| CreateTagsOutput::builder().build());
        let step = TagResources { ec2: mock_client!(aws_sdk_ec2, RuleMode::MatchAny, [&described, &taken, &marked]) };
        let first = [ID, "vol-1", "snap-1"].map(|id| (key(id, "Evidence"), Value::Null)).into();
        let found = step.read_journaled(&target(), &first).await.expect("read");
        let goal = step.released(&target(), &found, &first);
        assert!(step.write(&target(), &found, &goal.state).await.failures.is_empty());
        assert_eq!((taken.num_calls(), marked.num_calls()), (1, 1));
    }
}

//! Tags the instance, its volumes and the case's snapshots, for people to search. Tags are never authority (trap K6).

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, Tag};
use containment::{Error, Found, Goal, Key, Result, State, Step, Target, Writes};

/// The step. Reads and sets the tags that [`Target::incident_tags`] names, and no others.
#[derive(Debug, Clone)]
pub struct TagResources {
    ec2: Client,
}

const TAGS: &str = "Tags";

impl TagResources {
    /// The step in the configuration's Region.
    pub fn new(aws: &SdkConfig) -> Self {
        TagResources { ec2: Client::new(aws) }
    }

    async fn tag(&self, ids: &[String], tags: &[Tag]) -> Result<()> {
        let call = self.ec2.create_tags().set_resources(Some(ids.to_vec())).set_tags(Some(tags.to_vec()));
        call.send().await.map(|_| ()).map_err(Error::aws("ec2:CreateTags", ids.join(", ")))
    }

    async fn instance_tags(&self, target: &Target) -> Result<Vec<Tag>> {
        let of_instance = Filter::builder().name("resource-id").values(&target.instance_id).build();
        let pages = self.ec2.describe_tags().filters(of_instance).into_paginator().items().send();
        let tags: Vec<_> = pages.try_collect().await.map_err(Error::aws("ec2:DescribeTags", &target.instance_id))?;
        Ok(tags.iter().map(|t| Tag::builder().set_key(t.key.clone()).set_value(t.value.clone()).build()).collect())
    }
}

impl Step for TagResources {
    /// Those of a resource's tags that are Cordon's to set.
    type Value = BTreeMap<String, String>;
    type Facts = ();
    const NAME: &'static str = "tag-resources";

    async fn read(&self, target: &Target) -> Result<Found<Self::Value, ()>> {
        let (own, volumes, snapshots) = futures::try_join!(
            self.instance_tags(target),
            instance::volumes(&self.ec2, target),
            instance::snapshots_of_case(&self.ec2, target)
        )?;
        let volumes = volumes.iter().filter_map(|v| Some((v.volume_id()?, v.tags())));
        let snapshots = snapshots.iter().filter_map(|s| Some((s.snapshot_id()?, s.tags())));
        let all = [(target.instance_id.as_str(), own.as_slice())].into_iter().chain(volumes).chain(snapshots);
        let state = all.map(|(id, tags)| (Key::new(id, TAGS), ours(tags)));
        Ok(Found { state: state.collect(), facts: () })
    }

    fn contained(&self, target: &Target, found: &Found<Self::Value, ()>) -> Goal<Self::Value> {
        let with_ours = |tags: &Self::Value| tags.clone().into_iter().chain(target.incident_tags()).collect();
        Goal::new(found.state.iter().map(|(key, tags)| (key.clone(), with_ours(tags))).collect())
    }

    async fn write(&self, _: &Target, found: &Found<Self::Value, ()>, goal: &State<Self::Value>) -> Writes {
        // Most resources lack the same tags, so that one call serves them all.
        let mut lacking: BTreeMap<Vec<(&String, &String)>, Vec<String>> = BTreeMap::new();
        for (key, wanted) in goal {
            let has = found.state.get(key);
            let lacks = wanted.iter().filter(|(name, value)| has.and_then(|h| h.get(*name)) != Some(value)).collect();
            lacking.entry(lacks).or_default().push(key.resource.clone());
        }
        let calls = lacking.into_iter().filter(|(tags, _)| !tags.is_empty()).map(|(tags, ids)| async move {
            let tags: Vec<Tag> =
                tags.into_iter().map(|(name, value)| Tag::builder().key(name).value(value).build()).collect();
            match self.tag(&ids, &tags).await {
                // One resource that takes no more tags, or is gone, must not keep the others from theirs.
                Err(error) if ids.len() > 1 && !error.is_transient() => {
                    let each = ids.iter().map(|id| self.tag(std::slice::from_ref(id), &tags));
                    futures::future::join_all(each).await
                }
                result => vec![result],
            }
        });
        let mut writes = Writes::default();
        for result in futures::future::join_all(calls).await.into_iter().flatten() {
            writes.note(result);
        }
        writes
    }
}

/// All the names that any run may set, so that the journal has what was there before the first, whatever it was asked for.
const NAMES: [&str; 5] = ["CordonCase", "Evidence", "IncidentTicket", "Owner", "SecurityIncidentStatus"];

fn ours(tags: &[Tag]) -> BTreeMap<String, String> {
    let pairs = tags.iter().filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())));
    pairs.filter(|(name, _)| NAMES.contains(&name.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::operation::create_tags::CreateTagsOutput;
    use aws_smithy_mocks::{RuleMode, mock, mock_client};

    fn target() -> Target {
        Target { incident_ticket: Some("INC-7".to_owned()), ..Target::example() }
    }

    fn found(resources: &[(&str, &[(&str, &str)])]) -> Found<BTreeMap<String, String>, ()> {
        let state = resources.iter().map(|(id, tags)| {
            (Key::new(*id, TAGS), tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        });
        Found { state: state.collect(), facts: () }
    }

    #[test]
    fn other_tags_are_neither_read_nor_planned_and_an_owner_is_read_whether_or_not_one_is_given() {
        let tags = [("Name", "web"), ("Owner", "team-a")].map(|(k, v)| Tag::builder().key(k).value(v).build());
        assert_eq!(ours(&tags), BTreeMap::from([("Owner".into(), "team-a".into())]));
        let step = TagResources { ec2: mock_client!(aws_sdk_ec2, []) };
        let goal = step.contained(&target(), &found(&[("i-1", &[("Owner", "team-a")])]));
        assert_eq!(goal.state[&Key::new("i-1", TAGS)]["Owner"], "team-a");
    }

    #[test]
    fn every_tag_that_a_run_can_set_is_among_those_that_are_read() {
        let all = Target { owner: Some("o".into()), ..target() }.incident_tags();
        assert!(all.keys().all(|name| NAMES.contains(&name.as_str())) && all.len() == NAMES.len());
    }

    #[tokio::test]
    async fn one_resource_that_takes_no_more_tags_does_not_keep_the_others_from_theirs() {
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
        let goal = step.contained(&target(), &found);
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
        let goal = step.contained(&target(), &found);
        assert!(step.write(&target(), &found, &goal.state).await.failures.is_empty());
        assert_eq!(rule.num_calls(), 2);
    }
}

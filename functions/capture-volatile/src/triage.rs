//! The triage: processes, connections, logs and whatever else a running host has, but for its memory.

use std::collections::HashMap;

use containment::{Journal, Result, Target};

use crate::CaptureVolatile;
use crate::command::Platform;
use crate::part::{Command, Opening, key};
use crate::record::Asked;

/// The script packs 96 MiB of text at most.
const BYTES_AT_MOST: u64 = 128 * 1024 * 1024;
/// How many seconds the script has.
const SECONDS: i64 = 300;

const SUMMARY: &str = "summary.json";

fn archive(platform: Platform) -> &'static str {
    match platform {
        Platform::Linux => "triage.tar.gz",
        Platform::Windows => "triage.zip",
    }
}

/// The objects that are to arrive, and how many bytes each may have.
pub(crate) fn expected(asked: &Asked) -> (Vec<&'static str>, u64) {
    (vec![archive(asked.platform), SUMMARY], BYTES_AT_MOST)
}

impl<J: Journal> CaptureVolatile<'_, J> {
    pub(crate) async fn open_triage(&self, target: &Target) -> Result<Opening> {
        if let Some(why) = self.out_of_reach(target) {
            return Ok(Opening::NotNow(why));
        }
        if target.capture_window && !self.has_window(target).await? {
            return Ok(Opening::NotNow(
                "the instance is isolated, and its VPC has no way to Systems Manager and S3 that could be left open: \
                 isolate-network says what is missing; CaptureMode CaptureFirst captures before isolation"
                    .to_owned(),
            ));
        }
        Ok(match self.commands.reach(target).await? {
            Ok(platform) => Opening::Ask(self.request(platform, self.settings.deadline)),
            Err(why) => Opening::NotNow(why),
        })
    }

    /// Whether isolation has left an interface a way out. Without one, the host could not fetch the command.
    async fn has_window(&self, target: &Target) -> Result<bool> {
        let interfaces = instance::interfaces(&self.ec2, target).await?;
        let mut groups = interfaces.iter().flat_map(|interface| interface.groups());
        Ok(groups.any(|group| group.group_name() == Some(network::CAPTURE)))
    }

    pub(crate) async fn triage_parameters(&self, target: &Target, asked: &Asked, left: i64) -> Result<Command> {
        let mut parameters = HashMap::new();
        for (parameter, name) in [("TriageUrl", archive(asked.platform)), ("SummaryUrl", SUMMARY)] {
            let url = self.objects.put_url(&key(target, name), left).await?;
            parameters.insert(parameter.to_owned(), vec![url]);
        }
        Ok(((left - 10).clamp(5, SECONDS), parameters))
    }
}

//! The image of the memory: uploaded by the host in parts, by a plan that says where each of them goes.

use containment::{Error, Journal, Result, Status, Target};

use crate::CaptureVolatile;
use crate::command::Platform;
use crate::part::{Command, Opening, key};
use crate::record::{Asked, Ended};

pub(crate) const IMAGE: &str = "memory.image";

/// With less time than this nothing is begun.
const WORTH_BEGINNING: i64 = 30;

/// Small enough for the host to keep one part in memory while it is uploaded; S3 asks for 5 MiB at least.
const PART: u64 = 64 * 1024 * 1024;
/// S3 takes so many parts of an object.
const PARTS_AT_MOST: u64 = 10_000;
/// The largest memory that is imaged: with more, an hour's deadline would pass long before the end.
const MEMORY_AT_MOST: u64 = 2 * 1024 * 1024 * 1024 * 1024;

/// The object that is to arrive, and how many bytes it may have.
pub(crate) fn expected(asked: &Asked) -> (Vec<&'static str>, u64) {
    (vec![IMAGE], asked.parts.map_or(0, |(size, count)| size.saturating_mul(count)))
}

impl<J: Journal> CaptureVolatile<'_, J> {
    pub(crate) async fn open_memory(&self, target: &Target, triage: &Ended) -> Result<Opening> {
        let not_now = |why: &str| Ok(Opening::NotNow(why.to_owned()));
        if self.settings.tool.is_none() {
            return not_now(
                "the stack has no memory tool: MemoryToolKey and MemoryToolSha256 name one in the evidence bucket",
            );
        }
        if triage.platform != Some(Platform::Linux) {
            return not_now("Cordon takes images of the memory of Linux only");
        }
        let within = self.settings.deadline - triage.took;
        if within < WORTH_BEGINNING {
            let no_time = Ended::unsupported("the deadline left no time for it");
            return Ok(Opening::Never(Ended { status: Status::Failed, ..no_time }));
        }
        let Some(parts) = triage.memory_total.and_then(Parts::of) else {
            return not_now("the host did not say how much memory it has, or more than an image is made of");
        };
        let upload = self.objects.begin(&key(target, IMAGE)).await?;
        let request = self.request(Platform::Linux, within);
        Ok(Opening::Ask(Asked { upload: Some(upload), parts: Some((parts.size, parts.count)), ..request }))
    }

    /// The plan has a URL for each part, hundreds of kilobytes: it is an object of its own, and the parameter leads to it.
    pub(crate) async fn memory_parameters(
        &self,
        target: &Target,
        asked: &Asked,
        attempt: usize,
        left: i64,
    ) -> Result<Command> {
        let (Some(tool), Some(upload), Some((size, count))) = (&self.settings.tool, &asked.upload, asked.parts) else {
            return Err(Error::Misconfigured("the journal has a memory image without its tool and parts".to_owned()));
        };
        let urls = self.objects.part_urls(&key(target, IMAGE), upload, count, left).await?;
        let tool_url = self.objects.get_url(&tool.key, left).await?;
        let plan = plan(&tool.sha256, &tool_url, Parts { size, count }, &urls);
        let sha256 = custody::sha256(plan.as_bytes());
        let plan_key = key(target, &format!("memory-plan-{attempt}-{}.txt", self.now));
        self.objects.store(self.journal, target, plan_key.clone(), plan).await?;
        let url = self.objects.get_url(&plan_key, left).await?;
        let parameters = [("PlanUrl".to_owned(), vec![url]), ("PlanSha256".to_owned(), vec![sha256])];
        Ok(((left - 10).max(5), parameters.into()))
    }
}

/// The parts of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Bytes of each but the last.
    pub(crate) size: u64,
    /// How many there may be.
    pub(crate) count: u64,
}

impl Parts {
    /// Parts for the memory that the host says it has. An image has more than what Linux calls `MemTotal`, which leaves out
    /// what firmware and kernel keep for themselves: an eighth and 512 MiB are added. None if the host's number is
    /// impossible.
    pub(crate) fn of(memory_total: u64) -> Option<Parts> {
        if memory_total == 0 || memory_total > MEMORY_AT_MOST {
            return None;
        }
        let image = memory_total + memory_total / 8 + 512 * 1024 * 1024;
        let mut size = PART;
        while image.div_ceil(size) > PARTS_AT_MOST {
            size *= 2;
        }
        Some(Parts { size, count: image.div_ceil(size) })
    }
}

/// The plan as the script reads it: one word, then what belongs to it, a line each.
pub(crate) fn plan(tool_sha256: &str, tool_url: &str, parts: Parts, urls: &[String]) -> String {
    let mut lines = vec![format!("tool {tool_sha256} {tool_url}"), format!("part-size {}", parts.size)];
    lines.extend(urls.iter().enumerate().map(|(n, url)| format!("part {} {url}", n + 1)));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_a_small_and_of_a_huge_host_fits_the_parts_that_s3_takes() {
        let gib = 1024 * 1024 * 1024;
        assert_eq!(Parts::of(gib), Some(Parts { size: PART, count: 26 }));
        for memory in [1, gib, 384 * gib, 768 * gib, MEMORY_AT_MOST] {
            let parts = Parts::of(memory).expect("parts");
            assert!(parts.count <= PARTS_AT_MOST && parts.count * parts.size > memory, "{memory}");
        }
    }

    #[test]
    fn a_memory_that_cannot_be_is_not_planned_for() {
        assert_eq!((Parts::of(0), Parts::of(MEMORY_AT_MOST + 1), Parts::of(u64::MAX)), (None, None, None));
    }

    #[test]
    fn the_plan_has_a_line_for_the_tool_and_one_for_each_part() {
        let parts = Parts { size: 5, count: 2 };
        let text = plan("ab", "https://t", parts, &["https://1".into(), "https://2".into()]);
        assert_eq!(text, "tool ab https://t\npart-size 5\npart 1 https://1\npart 2 https://2\n");
    }
}

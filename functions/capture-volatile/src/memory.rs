//! How a memory image is cut into parts, and the plan that tells the host so.

/// Small enough for the host to keep one part in memory while it is uploaded; S3 asks for 5 MiB at least.
const PART: u64 = 64 * 1024 * 1024;
/// S3 takes so many parts of an object.
const PARTS_AT_MOST: u64 = 10_000;
/// The largest memory that an image is made of: of more, an hour's deadline would be over long before.
const MEMORY_AT_MOST: u64 = 2 * 1024 * 1024 * 1024 * 1024;

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
    /// what firmware and kernel keep for themselves: an eighth and 512 MiB are added. None where it says what cannot be.
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

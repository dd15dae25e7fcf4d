//! The Lambda function `tag-resources`.

use tag_resources::TagResources;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve_reversible_step(|_, config, _| TagResources::new(config)).await
}

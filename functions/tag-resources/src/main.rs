//! The Lambda function `tag-resources`.

use tag_resources::TagResources;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    containment::serve_step(|aws, target| Ok(TagResources::new(&aws.of(target)))).await
}

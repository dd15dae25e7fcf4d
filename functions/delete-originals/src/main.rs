//! The Lambda function `delete-originals`.

use delete_originals::DeleteOriginals;
use snapshots::key_in_region;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve_step(|aws, config, target| {
        let wanted = aws.setting("DELETE_UNENCRYPTED_ORIGINALS").as_deref() == Some("true");
        DeleteOriginals::new(config, wanted, key_in_region(aws.setting("SNAPSHOT_KEY_ARN"), target))
    })
    .await
}

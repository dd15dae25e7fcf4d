//! The Lambda function `encrypt-snapshots`.

use encrypt_snapshots::EncryptSnapshots;
use snapshots::key_in_region;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    runtime::serve_step(|aws, config, target| {
        let to_be_shared = aws.setting("FORENSIC_ACCOUNT").is_some();
        EncryptSnapshots::new(config, key_in_region(aws.setting("SNAPSHOT_KEY_ARN"), target), to_be_shared)
    })
    .await
}

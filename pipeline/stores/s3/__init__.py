"""A bucket of Amazon S3 or of a server that speaks as it does, by boto3; nothing else in the project imports that."""

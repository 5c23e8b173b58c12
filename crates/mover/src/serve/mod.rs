//! The embedded S3 endpoint: a directory, one access key, nothing acknowledged before it is durable.

"""What each LanceDB table shows of the shards: a file a table."""

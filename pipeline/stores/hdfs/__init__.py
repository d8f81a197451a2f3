"""An HDFS folder as a lake (docs/protocol.md 2): `store.HdfsStore`."""

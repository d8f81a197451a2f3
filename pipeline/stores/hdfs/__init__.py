"""An HDFS folder as a lake (PROTOCOL 2): `store.HdfsStore`."""

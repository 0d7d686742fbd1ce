"""Everything that leaves the process: the log's payloads and the messages on sockets."""

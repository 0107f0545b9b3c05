"""The process that owns the socket, and hands each connection to a worker. It imports next to nothing."""

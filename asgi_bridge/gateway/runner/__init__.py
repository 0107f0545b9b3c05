"""The gateway's end of the runner's socket: connections, calls, and what the answers do to a request."""

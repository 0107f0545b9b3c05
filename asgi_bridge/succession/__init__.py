"""Who has the socket path of a runner, and how it passes to the next one. This room imports nothing heavy."""

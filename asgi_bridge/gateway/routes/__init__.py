"""The routes of the gateway: what they are, how a request finds its own, and how they are read from a file."""

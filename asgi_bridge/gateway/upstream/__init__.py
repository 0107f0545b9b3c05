"""The way to the upstream: what is sent there, over the network or to an ASGI application in this process."""

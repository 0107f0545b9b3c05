"""What a runner under ``asgi-bridge dev`` tells of its calls: each plugin's part, log lines and output.

A runner without ``dev`` imports none of this.
"""

"""The table of API keys that all four gates look into."""

import hashlib

# Stands in for your database. It has only digests, so nobody can use a stolen copy to log in.
#   python -c 'import hashlib; print(hashlib.sha256(b"ada-secret").hexdigest())'
USERS = {
    "cb3ac4f9f4ba2da6f063a94debb6009ec2ee2abcf28f90cd97fdb92fdc44d736": "ada",  # ada-secret
    "9f03ef1533a68d2f506f81ef463c1183a82a6bd40e45613f36e6fe1889cf1b99": "bob",  # bob-secret
}

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
"""The methods that a gate lets pass."""

DETAIL = "Send a valid X-API-Key."
"""What a refused client reads."""


def user_of(key: str | None) -> str | None:
    """Return the user to whom an API key belongs; None: nobody."""
    return USERS.get(hashlib.sha256((key or "").encode()).hexdigest())

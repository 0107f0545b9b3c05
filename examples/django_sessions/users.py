"""Who there is. It stands in for Django's ModelBackend and the table of users, so that no database is needed."""

from typing import Any

from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.http import HttpRequest

# the time of a login is written to the table of users
user_logged_in.disconnect(dispatch_uid="update_last_login")

# Hashes, as make_password() gives them, of "ada-password" and "bob-password". They are part of a session's signature:
# a new one ends the user's sessions.
USERS = [
    User(
        pk=1,
        username="ada",
        password="pbkdf2_sha256$1000000$03ryTnR7yBLBTZCJCCygtM$FfTpmgOuDneC6Lj7xvpSbje6xuAJy/TZ/rgY0LVp0ZY=",
        is_staff=True,
    ),
    User(
        pk=2,
        username="bob",
        password="pbkdf2_sha256$1000000$nC0M8bLaDinWOdUM8wD4De$wVfAZWZu8XkLFyydQTeRE0tURBvc9wMszvmQGY8NlXU=",
    ),
]


class InMemoryBackend(BaseBackend):
    def authenticate(
        self, request: HttpRequest | None, username: str = "", password: str = "", **credentials: Any
    ) -> User | None:
        for user in USERS:
            if user.username == username:
                return user if user.check_password(password) else None
        make_password(password)  # as slow as for a name that exists, so that time does not tell which do
        return None

    def get_user(self, user_id: int) -> User | None:
        return next((user for user in USERS if user.pk == user_id), None)

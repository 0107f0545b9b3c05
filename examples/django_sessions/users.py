"""Two users in memory, in place of Django's ModelBackend and its table of users. So no database is needed."""

from typing import Any

from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.http import HttpRequest

# Django would write the time of a login to the table of users.
user_logged_in.disconnect(dispatch_uid="update_last_login")

# Hashes of "ada-password" and "bob-password", made with make_password(). They are part of a session's signature, so a
# new hash ends the user's sessions.
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
    """Authentication backend for the users above."""

    def authenticate(
        self, request: HttpRequest | None, username: str = "", password: str = "", **credentials: Any
    ) -> User | None:
        for user in USERS:
            if user.username == username:
                return user if user.check_password(password) else None
        make_password(password)  # takes as long as for a known name, so that the time does not reveal which names exist
        return None

    def get_user(self, user_id: int) -> User | None:
        return next((user for user in USERS if user.pk == user_id), None)

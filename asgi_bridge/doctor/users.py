"""What another user may do with a file, by its mode."""

import grp
import os
import pwd
import stat
from dataclasses import dataclass

from ..errors import ConfigurationError

__all__ = ["ENTER", "WRITE", "User", "find_user", "group_name", "user_name"]

ENTER = 0o1
"""Permission to reach what is in a folder."""
WRITE = 0o2
"""Permission to write. To connect to a unix socket a process needs it too (unix(7))."""


@dataclass(frozen=True, slots=True)
class User:
    """A user, and the groups that a process of theirs is in.

    Attributes:
        name: Their name.
        uid: Their number.
        groups: The numbers of their groups.
    """

    name: str
    uid: int
    groups: frozenset[int]

    def may(self, found: os.stat_result, permission: int) -> bool:
        """Whether the mode of a file gives this user a permission.

        Args:
            found: Of the file. Access control lists are not looked at.
            permission: `ENTER` or `WRITE`.
        """
        if self.uid == 0:
            return True
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid == self.uid:
            mode >>= 6
        elif found.st_gid in self.groups:
            mode >>= 3
        return mode & permission != 0


def find_user(name: str) -> User:
    """Return the user with this name or number.

    Raises:
        ConfigurationError: This machine does not know the user.
    """
    try:
        known = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise ConfigurationError(f"this machine has no user {name}; --worker-user names that of nginx") from None
    return User(known.pw_name, known.pw_uid, frozenset(os.getgrouplist(known.pw_name, known.pw_gid)))


def user_name(uid: int) -> str:
    """Return the name of a user, or their number where they have none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """Return the name of a group, or its number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)

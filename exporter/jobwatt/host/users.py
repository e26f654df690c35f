"""Names of users, by uid."""

from __future__ import annotations

import pwd
from pathlib import Path

from jobwatt.errors import ReadError
from jobwatt.host.files import is_integer, read_bytes
from jobwatt.host.procfs import decode

__all__ = ["UserNames", "parse_passwd"]

_PASSWD_UID = 2


def parse_passwd(data: bytes) -> dict[int, str]:
    """Parse passwd(5); a line that is none is left out, the first name of a uid holds."""
    names: dict[int, str] = {}
    for line in data.split(b"\n"):
        fields = line.split(b":")
        if len(fields) > _PASSWD_UID and fields[0] and is_integer(fields[_PASSWD_UID]):
            names.setdefault(int(fields[_PASSWD_UID]), decode(fields[0]))
    return names


class UserNames:
    """The machine's users: its own name service, or the passwd file of a mounted host root."""

    def __init__(self, rootfs: Path | None = None) -> None:
        self._passwd = None if rootfs in (None, Path("/")) else rootfs / "etc/passwd"
        self._known: dict[int, str] = {}

    def name(self, uid: int) -> str:
        """Return a uid's name, or the number as text where it has none."""
        if uid not in self._known:
            self._known[uid] = self._look_up(uid) or str(uid)
        return self._known[uid]

    def _look_up(self, uid: int) -> str | None:
        if self._passwd is None:
            try:
                return pwd.getpwuid(uid).pw_name
            except (KeyError, OverflowError):
                return None
        try:
            return parse_passwd(read_bytes(self._passwd)).get(uid)
        except ReadError:
            return None

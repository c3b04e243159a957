"""What of a class is for users, where other rooms of the package need more of it than they do. [pure]"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class ForUsers(type):
    """Makes ``help()`` and completion show of a class what is in its ``FOR_USERS``. The rest is for the package."""

    FOR_USERS: ClassVar[tuple[str, ...]]

    def __dir__(cls) -> Iterable[str]:
        return cls.FOR_USERS

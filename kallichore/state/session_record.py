"""What a session is, in a small file: enough to find its host again, or to start its kernel anew as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import msgspec

from kallichore.errors import StateDamagedError
from kallichore.state.whole_file import replace_file

RECORD_NAME = "session.json"


@attrs.frozen
class SessionRecord:
    """What is known of a session besides its log.

    Args:
        session_id: Its id, which its directory's name only resembles.
        request: The JSON document with which it was created.
        key: With which its kernel's messages are signed.
        secret: Which its host and its server prove to know, as hexadecimal digits.
        created: When, in seconds since 1970.
        host_pid: Its host's process; None before the first start.
        boot_id: Of the machine, when the host was started; None where machines have none.
        facts: Anything else, by name.
    """

    session_id: str
    request: dict[str, Any]
    key: str
    secret: str = attrs.field(repr=False)
    created: float
    host_pid: int | None = None
    boot_id: str | None = None
    facts: dict[str, Any] = attrs.field(factory=dict)

    def write(self, directory: Path) -> None:
        """Write it into a session's directory, in the place of the one that is there.

        Raises:
            OSError: It could not be written; what was there is there still.
        """
        replace_file(directory / RECORD_NAME, msgspec.json.encode(attrs.asdict(self, recurse=False)))

    @classmethod
    def read(cls, directory: Path) -> SessionRecord:
        """Read it from a session's directory.

        Raises:
            StateDamagedError: It is missing, or does not say what it has to.
        """
        path = directory / RECORD_NAME
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise StateDamagedError(f"Could not read {path}: {error.strerror}") from error
        except msgspec.MsgspecError as error:
            raise StateDamagedError(f"{path} is damaged: {error}") from error
        except ValueError as error:
            raise StateDamagedError(f"{path} is damaged: it is not UTF-8") from error

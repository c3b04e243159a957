"""Which of the session's messages callers in this process are given: who runs code and waits for what comes of it."""

from __future__ import annotations

import attrs

from kallichore.conversation.journal import Shift


@attrs.define
class GivenToCallers:
    """The numbers in the journal of what each caller is given, by the id of its execution.

    What a kernel says about one execution has mostly numbers in a row, be it a million messages.
    """

    _ranges: dict[str, list[range]] = attrs.field(factory=dict, init=False)

    def note(self, msg_id: str, number: int) -> None:
        """Note that the caller is given the message with this number; the numbers of one caller come in order."""
        ranges = self._ranges.setdefault(msg_id, [])
        if ranges and ranges[-1].stop == number:
            ranges[-1] = range(ranges[-1].start, number + 1)
        else:
            ranges.append(range(number, number + 1))

    def take(self, msg_id: str) -> list[range]:
        """Return the numbers of what a caller was given, in order, and forget them."""
        return self._ranges.pop(msg_id, [])

    def renumber(self, shift: Shift) -> None:
        """Follow the journal, in which messages of another caller were taken back."""
        for ranges in self._ranges.values():
            ranges[:] = [range(shift(each.start), shift(each.stop)) for each in ranges]

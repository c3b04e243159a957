"""How long and how much, in the few letters that a table has for it. [pure]"""

from __future__ import annotations

_SPANS = (("d", 86400), ("h", 3600), ("min", 60))

_SIZES = ("bytes", "kB", "MB", "GB", "TB")

_STEP = 1000


def span(seconds: float | None) -> str:
    """Return a duration in its largest unit, cut to a whole number: ``3 h``; nothing for None, as it is not known."""
    if seconds is None:
        return ""
    name, unit = next(((name, unit) for name, unit in _SPANS if seconds >= unit), ("s", 1))
    return f"{max(0, int(seconds // unit))} {name}"


def size(number: int | None) -> str:
    """Return an amount of memory, as the dashboard has it: ``98 MB``, ``1.2 GB``; nothing for None."""
    if number is None:
        return ""
    amount, names = float(number), iter(_SIZES)
    name = next(names)
    while amount >= _STEP - 0.5 and name != _SIZES[-1]:
        amount, name = amount / _STEP, next(names)
    return f"{amount:.1f} {name}" if name != _SIZES[0] and amount < 9.95 else f"{amount:.0f} {name}"

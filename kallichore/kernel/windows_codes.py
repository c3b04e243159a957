"""Exit codes on Windows: as clients read them, and what a crash means in words. [pure]

A process that an exception ends has the exception's number as its exit code. Source: Microsoft's table of NTSTATUS
values. Python gives exit codes as unsigned numbers, while Jupyter's clients, like .NET and Node, read signed ones.
"""

from __future__ import annotations

CRASHES = {
    0x40010004: "the user's Windows session ended",
    0x80000002: "datatype misalignment",
    0x80000003: "breakpoint",
    0xC0000005: "access violation",
    0xC0000006: "memory could not be read in from its file",
    0xC0000008: "invalid handle",
    0xC0000017: "out of memory",
    0xC000001D: "illegal instruction",
    0xC0000025: "exception that cannot be continued from",
    0xC000008C: "array bounds exceeded",
    0xC000008E: "floating-point division by zero",
    0xC0000090: "invalid floating-point operation",
    0xC0000091: "floating-point overflow",
    0xC0000094: "integer division by zero",
    0xC0000095: "integer overflow",
    0xC0000096: "privileged instruction",
    0xC00000FD: "stack overflow",
    0xC000012D: "no memory left to commit",
    0xC0000135: "a DLL was not found",
    0xC0000138: "a function was not found in a DLL",
    0xC0000139: "a function was not found in a DLL",
    0xC000013A: "ended by Ctrl-C",
    0xC0000142: "a DLL could not be initialised",
    0xC0000374: "heap corruption",
    0xC0000409: "stack buffer overrun, or the program aborted",
    0xC000041D: "exception in a callback",
    0xC0000420: "assertion failure",
    0xC0000602: "the program gave up",
}
"""What exit codes mean that are no program's own choice."""


def signed(code: int) -> int:
    """Return an exit code as a signed number of 32 bits."""
    return (code + (1 << 31)) % (1 << 32) - (1 << 31)


def describe_code(code: int) -> str:
    """Return how a process with a signed exit code ended, as the end of a sentence."""
    number = code % (1 << 32)
    if number in CRASHES:
        return f"crashed with code 0x{number:08X} ({CRASHES[number]})"
    # A program's own codes are small; all others are known to people, and to search engines, by their hexadecimals.
    return f"exited with code {code}" + (f" (0x{number:08X})" if code < -1 else "")

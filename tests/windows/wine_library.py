"""What Rust's modules ask Windows for and Wine 8 lacks: `bcryptprimitives.dll`, made here byte by byte.

Its one function, `ProcessPrng`, takes a buffer and its size, as an older function does that Wine has. A library may say
that one of its functions is another's, so this one needs no code, and no compiler: it is a header and a table of
exports (Microsoft's "PE Format").
"""

from __future__ import annotations

import struct

NAME = "bcryptprimitives.dll"

FUNCTION = b"ProcessPrng"
FORWARDED_TO = b"advapi32.SystemFunction036"
"""Better known as RtlGenRandom."""

SECTION = 0x1000
"""Where the one section is in memory, and the unit in which memory is counted."""
FILE_UNIT = 0x200
"""The unit in which the file is counted: the header is one, the section another."""

AMD64, PLUS = 0x8664, 0x20B
EXECUTABLE, LARGE_ADDRESSES, LIBRARY = 0x02, 0x20, 0x2000
CONSOLE, MAY_MOVE = 3, 0x140
READABLE_DATA = 0x40000040


def forwarding_library() -> bytes:
    """Return the library, as a file's content."""
    exports = _exports()
    return _headers(len(exports)).ljust(FILE_UNIT, b"\0") + exports.ljust(FILE_UNIT, b"\0")


def _exports() -> bytes:
    """Return the section: the directory, three tables of one entry each, and the three texts that they point at."""
    directory_size = 40
    tables = SECTION + directory_size
    texts = tables + 4 + 4 + 4  # the last table's entry has two bytes, and two that are not used
    name = NAME.encode() + b"\0"
    function_at = texts + len(name)
    forwarded_at = function_at + len(FUNCTION) + 1
    directory = struct.pack("<IIHHIIIIIII", 0, 0, 0, 0, texts, 1, 1, 1, tables, tables + 4, tables + 8)
    # An address inside this section is no code but the name of another library's function.
    entries = struct.pack("<IIHH", forwarded_at, function_at, 0, 0)
    return directory + entries + name + FUNCTION + b"\0" + FORWARDED_TO + b"\0"


def _headers(exports_size: int) -> bytes:
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    optional = struct.pack(
        "<HBBIIIIIQIIHHHHHHIIIIHHQQQQII",
        PLUS, 14, 0, 0, FILE_UNIT, 0, 0, SECTION, 0x180000000, SECTION, FILE_UNIT, 6, 0, 0, 0, 6, 0, 0,
        2 * SECTION, FILE_UNIT, 0, CONSOLE, MAY_MOVE, 1 << 20, 1 << 12, 1 << 20, 1 << 12, 0, 16,
    )  # fmt: skip
    optional += struct.pack("<II", SECTION, exports_size) + bytes(15 * 8)
    file = struct.pack("<HHIIIHH", AMD64, 1, 0, 0, 0, len(optional), EXECUTABLE | LARGE_ADDRESSES | LIBRARY)
    section = struct.pack(
        "<8sIIIIIIHHI", b".edata", exports_size, SECTION, FILE_UNIT, FILE_UNIT, 0, 0, 0, 0, READABLE_DATA
    )
    return dos + b"PE\0\0" + file + optional + section

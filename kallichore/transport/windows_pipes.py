"""What Windows does with named pipes, through ctypes and Trio's overlapped I/O.

To Microsoft's documentation of CreateNamedPipeW, ConnectNamedPipe and CreateFileW; tried under Wine (`nox -s windows`).
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    import trio

    from kallichore.transport.named_pipe import PipeBusyError
    from kallichore.transport.windows_security import OwnerOnly

    PIPE_ACCESS_DUPLEX = 0x3
    FILE_FLAG_FIRST_PIPE_INSTANCE = 0x80000
    FILE_FLAG_OVERLAPPED = 0x40000000
    PIPE_REJECT_REMOTE_CLIENTS = 0x8
    PIPE_UNLIMITED_INSTANCES = 255
    GENERIC_READ_WRITE = 0xC0000000
    OPEN_EXISTING = 3
    IDENTIFICATION_ONLY = 0x00110000
    """Whoever serves a pipe may learn who its client is, and not act in the client's name."""
    ERROR_BROKEN_PIPE, ERROR_PIPE_BUSY, ERROR_NO_DATA, ERROR_PIPE_NOT_CONNECTED = 109, 231, 232, 233
    ERROR_PIPE_CONNECTED, ERROR_IO_PENDING = 535, 997
    CONNECTED = frozenset({ERROR_PIPE_CONNECTED, ERROR_NO_DATA})
    """ConnectNamedPipe's errors that are none: a client has come before us, or has come and gone; what it wrote before
    that is still there."""
    ENDED = frozenset({ERROR_BROKEN_PIPE, ERROR_PIPE_NOT_CONNECTED})
    """What reading answers where the other side is gone, and all that it wrote has been read."""
    BUFFER_BYTES = 1 << 16
    INVALID_HANDLE = wintypes.HANDLE(-1).value

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel32.CreateNamedPipeW.restype = wintypes.HANDLE
    _kernel32.CreateNamedPipeW.argtypes = (wintypes.LPCWSTR, *(wintypes.DWORD,) * 6, ctypes.c_void_p)
    _kernel32.CreateFileW.restype = wintypes.HANDLE
    _kernel32.CreateFileW.argtypes = (
        wintypes.LPCWSTR,
        wintypes.DWORD,
        wintypes.DWORD,
        ctypes.c_void_p,
        wintypes.DWORD,
        wintypes.DWORD,
        wintypes.HANDLE,
    )
    _kernel32.ConnectNamedPipe.argtypes = (wintypes.HANDLE, ctypes.c_void_p)
    _kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)

    class _Overlapped(ctypes.Structure):
        _fields_ = (
            ("Internal", ctypes.c_void_p),
            ("InternalHigh", ctypes.c_void_p),
            ("Offset", wintypes.DWORD),
            ("OffsetHigh", wintypes.DWORD),
            ("hEvent", wintypes.HANDLE),
        )

    def _last_error() -> OSError:
        return ctypes.WinError(ctypes.get_last_error())

    class WindowsPipes:
        """See `kallichore.transport.named_pipe.PipeSystem`."""

        def __init__(self) -> None:
            self._owner_only: OwnerOnly | None = None

        def create_instance(self, name: str, *, first: bool) -> int:
            """Make an instance of a pipe, for this user on this machine."""
            self._owner_only = self._owner_only or OwnerOnly()
            mode = PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED | (FILE_FLAG_FIRST_PIPE_INSTANCE if first else 0)
            handle = _kernel32.CreateNamedPipeW(
                name,
                mode,
                PIPE_REJECT_REMOTE_CLIENTS,
                PIPE_UNLIMITED_INSTANCES,
                BUFFER_BYTES,
                BUFFER_BYTES,
                0,
                self._owner_only.attributes,
            )
            return self._register(handle)

        def open_client(self, name: str) -> int:
            """Connect to a pipe."""
            flags = FILE_FLAG_OVERLAPPED | IDENTIFICATION_ONLY
            handle = _kernel32.CreateFileW(name, GENERIC_READ_WRITE, 0, None, OPEN_EXISTING, flags, None)
            if handle == INVALID_HANDLE and ctypes.get_last_error() == ERROR_PIPE_BUSY:
                raise PipeBusyError(f"{name} is busy")
            return self._register(handle)

        def _register(self, handle: int) -> int:
            if handle == INVALID_HANDLE:
                raise _last_error()
            try:
                trio.lowlevel.register_with_iocp(handle)
            except OSError:
                self.close(handle)
                raise
            return handle

        async def wait_client(self, handle: int) -> None:
            """Wait until a client has connected."""
            overlapped = _Overlapped()
            if not _kernel32.ConnectNamedPipe(handle, ctypes.byref(overlapped)):
                error = ctypes.get_last_error()
                if error in CONNECTED:
                    # There may be no end of them: others have their turn.
                    await trio.lowlevel.checkpoint()
                    return
                if error != ERROR_IO_PENDING:
                    raise ctypes.WinError(error)
            try:
                await trio.lowlevel.wait_overlapped(handle, ctypes.addressof(overlapped))
            except OSError as failure:
                if failure.winerror not in CONNECTED:
                    raise

        async def read(self, handle: int, most: int) -> bytes:
            """Return what arrived; a pipe whose other side is closed is at its end."""
            buffer = bytearray(most)
            try:
                size = await trio.lowlevel.readinto_overlapped(handle, buffer)
            except OSError as error:
                if error.winerror in ENDED:
                    return b""
                raise
            return bytes(buffer[:size])

        async def write(self, handle: int, data: bytes | bytearray | memoryview) -> None:
            """Send all of ``data``."""
            with memoryview(data) as view:
                sent = 0
                while sent < len(view):
                    sent += await trio.lowlevel.write_overlapped(handle, view[sent:])

        def close(self, handle: int) -> None:
            """Close a handle."""
            _kernel32.CloseHandle(handle)

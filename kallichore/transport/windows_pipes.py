"""What Windows does with named pipes, through ctypes and Trio's overlapped I/O.

Type-checked for win32 and written to Microsoft's documentation of CreateNamedPipeW, ConnectNamedPipe and CreateFileW;
it has not run on a Windows machine yet.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    import trio

    from kallichore.transport.named_pipe import PipeBusyError

    PIPE_ACCESS_DUPLEX = 0x3
    FILE_FLAG_FIRST_PIPE_INSTANCE = 0x80000
    FILE_FLAG_OVERLAPPED = 0x40000000
    PIPE_REJECT_REMOTE_CLIENTS = 0x8
    PIPE_UNLIMITED_INSTANCES = 255
    GENERIC_READ_WRITE = 0xC0000000
    OPEN_EXISTING = 3
    ERROR_BROKEN_PIPE, ERROR_PIPE_BUSY, ERROR_PIPE_CONNECTED, ERROR_IO_PENDING = 109, 231, 535, 997
    BUFFER_BYTES = 1 << 16
    INVALID_HANDLE = wintypes.HANDLE(-1).value

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel32.CreateNamedPipeW.restype = wintypes.HANDLE
    _kernel32.CreateFileW.restype = wintypes.HANDLE

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

        def create_instance(self, name: str, *, first: bool) -> int:
            """Make an instance of a pipe; its default security lets in its owner and refuses other machines."""
            mode = PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED | (FILE_FLAG_FIRST_PIPE_INSTANCE if first else 0)
            handle = _kernel32.CreateNamedPipeW(
                name,
                mode,
                PIPE_REJECT_REMOTE_CLIENTS,
                PIPE_UNLIMITED_INSTANCES,
                BUFFER_BYTES,
                BUFFER_BYTES,
                0,
                None,
            )
            return self._register(handle)

        def open_client(self, name: str) -> int:
            """Connect to a pipe."""
            handle = _kernel32.CreateFileW(name, GENERIC_READ_WRITE, 0, None, OPEN_EXISTING, FILE_FLAG_OVERLAPPED, None)
            if handle == INVALID_HANDLE and ctypes.get_last_error() == ERROR_PIPE_BUSY:
                raise PipeBusyError(f"{name} is busy")
            return self._register(handle)

        def _register(self, handle: int) -> int:
            if handle == INVALID_HANDLE:
                raise _last_error()
            trio.lowlevel.register_with_iocp(handle)
            return handle

        async def wait_client(self, handle: int) -> None:
            """Wait until a client has connected."""
            overlapped = _Overlapped()
            if not _kernel32.ConnectNamedPipe(wintypes.HANDLE(handle), ctypes.byref(overlapped)):
                error = ctypes.get_last_error()
                if error == ERROR_PIPE_CONNECTED:
                    return
                if error != ERROR_IO_PENDING:
                    raise _last_error()
            await trio.lowlevel.wait_overlapped(handle, ctypes.addressof(overlapped))

        async def read(self, handle: int, most: int) -> bytes:
            """Return what arrived; a pipe whose other side is closed is at its end."""
            buffer = bytearray(most)
            try:
                size = await trio.lowlevel.readinto_overlapped(handle, buffer)
            except OSError as error:
                if getattr(error, "winerror", None) == ERROR_BROKEN_PIPE:
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
            _kernel32.CloseHandle(wintypes.HANDLE(handle))

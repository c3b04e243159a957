"""Who may open what the server makes on Windows: this user, and nobody else.

What a pipe gets without more lets everybody on the machine read from it. The descriptor that is made here names the
user of the process itself: the owner of new objects may be a group, Administrators for one. Source: Microsoft's
documentation of SDDL and of access tokens. On other systems this module is empty; file modes do it there.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes
    from pathlib import Path

    _TOKEN_QUERY = 0x8
    _TOKEN_USER = 1
    _SDDL_REVISION = 1
    _FILE_OBJECT, _KERNEL_OBJECT = 1, 6
    _ACCESS_LIST, _NOT_INHERITED = 0x4, 0x80000000

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
    _kernel32.GetCurrentProcess.restype = wintypes.HANDLE
    _kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)
    _kernel32.LocalFree.argtypes = (ctypes.c_void_p,)
    _advapi32.OpenProcessToken.argtypes = (wintypes.HANDLE, wintypes.DWORD, ctypes.POINTER(wintypes.HANDLE))
    _advapi32.GetTokenInformation.argtypes = (
        wintypes.HANDLE,
        ctypes.c_int,
        ctypes.c_void_p,
        wintypes.DWORD,
        ctypes.POINTER(wintypes.DWORD),
    )
    _advapi32.ConvertSidToStringSidW.argtypes = (ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p))
    _advapi32.ConvertStringSecurityDescriptorToSecurityDescriptorW.argtypes = (
        wintypes.LPCWSTR,
        wintypes.DWORD,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_void_p,
    )
    _advapi32.ConvertSecurityDescriptorToStringSecurityDescriptorW.argtypes = (
        ctypes.c_void_p,
        wintypes.DWORD,
        wintypes.DWORD,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_void_p,
    )
    _advapi32.GetSecurityDescriptorDacl.argtypes = (
        ctypes.c_void_p,
        ctypes.POINTER(wintypes.BOOL),
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.POINTER(wintypes.BOOL),
    )
    _advapi32.SetNamedSecurityInfoW.argtypes = (
        wintypes.LPCWSTR,
        ctypes.c_int,
        wintypes.DWORD,
        *(ctypes.c_void_p,) * 4,
    )
    _advapi32.GetSecurityInfo.argtypes = (
        wintypes.HANDLE,
        ctypes.c_int,
        wintypes.DWORD,
        *(ctypes.c_void_p,) * 4,
        ctypes.POINTER(ctypes.c_void_p),
    )

    class _Attributes(ctypes.Structure):
        _fields_ = (
            ("length", wintypes.DWORD),
            ("descriptor", ctypes.c_void_p),
            ("inherit_handle", wintypes.BOOL),
        )

    class OwnerOnly:
        """Security attributes that let in this process's user alone: ``attributes`` is what Win32 functions take.

        Raises:
            OSError: The system does not say who we are.
        """

        def __init__(self) -> None:
            self._descriptor = ctypes.c_void_p()
            _check(
                _advapi32.ConvertStringSecurityDescriptorToSecurityDescriptorW(
                    f"D:P(A;;GA;;;{user_sid()})", _SDDL_REVISION, ctypes.byref(self._descriptor), None
                )
            )
            self._attributes = _Attributes(ctypes.sizeof(_Attributes), self._descriptor, False)
            self.attributes = ctypes.byref(self._attributes)

        def restrict_file(self, path: Path) -> None:
            """Let nobody else open a file that is there; whoever has it open already keeps it.

            Raises:
                OSError: It is not ours to restrict, or its file system knows no owners.
            """
            present, defaulted, acl = wintypes.BOOL(), wintypes.BOOL(), ctypes.c_void_p()
            _check(
                _advapi32.GetSecurityDescriptorDacl(
                    self._descriptor, ctypes.byref(present), ctypes.byref(acl), ctypes.byref(defaulted)
                )
            )
            kinds = _ACCESS_LIST | _NOT_INHERITED
            _check_code(_advapi32.SetNamedSecurityInfoW(str(path), _FILE_OBJECT, kinds, None, None, acl, None))

    def user_sid() -> str:
        """Return who this process runs as, as ``S-1-…``.

        Raises:
            OSError: The system does not tell.
        """
        token = wintypes.HANDLE()
        _check(_advapi32.OpenProcessToken(_kernel32.GetCurrentProcess(), _TOKEN_QUERY, ctypes.byref(token)))
        try:
            size = wintypes.DWORD()
            _advapi32.GetTokenInformation(token, _TOKEN_USER, None, 0, ctypes.byref(size))
            user = ctypes.create_string_buffer(size.value)
            _check(_advapi32.GetTokenInformation(token, _TOKEN_USER, user, size, ctypes.byref(size)))
        finally:
            _kernel32.CloseHandle(token)
        text = ctypes.c_void_p()
        # The structure begins with a pointer to the SID.
        sid = ctypes.cast(user, ctypes.POINTER(ctypes.c_void_p))[0]
        _check(_advapi32.ConvertSidToStringSidW(sid, ctypes.byref(text)))
        return _take_text(text)

    def access_list(handle: int, *, is_file: bool = False) -> str:
        """Return, as SDDL, who may open the object behind a handle.

        Raises:
            OSError: The system does not tell.
        """
        descriptor, text = ctypes.c_void_p(), ctypes.c_void_p()
        kind = _FILE_OBJECT if is_file else _KERNEL_OBJECT
        found = ctypes.byref(descriptor)
        _check_code(_advapi32.GetSecurityInfo(handle, kind, _ACCESS_LIST, None, None, None, None, found))
        try:
            _check(
                _advapi32.ConvertSecurityDescriptorToStringSecurityDescriptorW(
                    descriptor, _SDDL_REVISION, _ACCESS_LIST, ctypes.byref(text), None
                )
            )
        finally:
            _kernel32.LocalFree(descriptor)
        return _take_text(text)

    def _take_text(text: ctypes.c_void_p) -> str:
        assert text.value is not None
        try:
            return ctypes.wstring_at(text.value)
        finally:
            _kernel32.LocalFree(text)

    def _check(result: int) -> None:
        if not result:
            raise ctypes.WinError(ctypes.get_last_error())

    def _check_code(code: int) -> None:
        if code:
            raise ctypes.WinError(code)

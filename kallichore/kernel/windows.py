"""What only Windows has: interrupt events, handles that a child inherits, and job objects.

A Jupyter kernel on Windows is interrupted by an event whose handle it inherits, learns of its parent's end through an
inherited handle of the parent, and is ended with its descendants by a job object that dies with the server. Source:
`ipykernel.parentpoller` and the Win32 documentation. On other systems this module is empty.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    import attrs

    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel32.CreateEventW.restype = wintypes.HANDLE
    _kernel32.CreateEventW.argtypes = (ctypes.c_void_p, wintypes.BOOL, wintypes.BOOL, wintypes.LPCWSTR)
    _kernel32.SetEvent.argtypes = (wintypes.HANDLE,)
    _kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)
    _kernel32.GetCurrentProcess.restype = wintypes.HANDLE
    _kernel32.DuplicateHandle.argtypes = (
        wintypes.HANDLE,
        wintypes.HANDLE,
        wintypes.HANDLE,
        ctypes.POINTER(wintypes.HANDLE),
        wintypes.DWORD,
        wintypes.BOOL,
        wintypes.DWORD,
    )
    _kernel32.OpenProcess.restype = wintypes.HANDLE
    _kernel32.OpenProcess.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
    _kernel32.CreateJobObjectW.restype = wintypes.HANDLE
    _kernel32.CreateJobObjectW.argtypes = (ctypes.c_void_p, wintypes.LPCWSTR)
    _kernel32.SetInformationJobObject.argtypes = (wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD)
    _kernel32.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
    _kernel32.TerminateJobObject.argtypes = (wintypes.HANDLE, wintypes.UINT)

    _ntdll = ctypes.WinDLL("ntdll")
    _ntdll.NtResumeProcess.argtypes = (wintypes.HANDLE,)
    _ntdll.RtlNtStatusToDosError.argtypes = (wintypes.ULONG,)

    CREATE_SUSPENDED = 0x4
    _DUPLICATE_SAME_ACCESS = 0x2
    _PROCESS_TERMINATE = 0x1
    _PROCESS_SET_QUOTA = 0x100
    _PROCESS_SUSPEND_RESUME = 0x800
    _EXTENDED_LIMIT_INFORMATION = 9
    _KILL_ON_JOB_CLOSE = 0x2000

    class _SecurityAttributes(ctypes.Structure):
        _fields_ = (
            ("length", wintypes.DWORD),
            ("security_descriptor", ctypes.c_void_p),
            ("inherit_handle", wintypes.BOOL),
        )

    class _BasicLimits(ctypes.Structure):
        _fields_ = (
            ("per_process_user_time_limit", ctypes.c_int64),
            ("per_job_user_time_limit", ctypes.c_int64),
            ("limit_flags", wintypes.DWORD),
            ("minimum_working_set_size", ctypes.c_size_t),
            ("maximum_working_set_size", ctypes.c_size_t),
            ("active_process_limit", wintypes.DWORD),
            ("affinity", ctypes.c_size_t),
            ("priority_class", wintypes.DWORD),
            ("scheduling_class", wintypes.DWORD),
        )

    class _ExtendedLimits(ctypes.Structure):
        _fields_ = (
            ("basic", _BasicLimits),
            ("io_counters", ctypes.c_uint64 * 6),
            ("process_memory_limit", ctypes.c_size_t),
            ("job_memory_limit", ctypes.c_size_t),
            ("peak_process_memory_used", ctypes.c_size_t),
            ("peak_job_memory_used", ctypes.c_size_t),
        )

    def create_interrupt_event() -> int:
        """Return the handle of a new event: inheritable, reset by the one that waits, not set.

        Raises:
            OSError: There was no handle to be had.
        """
        attributes = _SecurityAttributes(ctypes.sizeof(_SecurityAttributes), None, True)
        return _checked(_kernel32.CreateEventW(ctypes.byref(attributes), False, False, None))

    def set_interrupt_event(event: int) -> None:
        """Interrupt the kernel that waits for the event.

        Raises:
            OSError: It is not an event, or was closed.
        """
        _checked(_kernel32.SetEvent(event))

    class Handles:
        """See `kallichore.kernel.inheritance.Inheritance`."""

        def __init__(self, by_event: bool) -> None:
            self._parent = duplicate_parent_handle()
            try:
                self._event = create_interrupt_event() if by_event else None
            except OSError:
                close_handle(self._parent)
                raise
            self.environment = {"JPY_PARENT_PID": str(self._parent)}
            if self._event is not None:
                self.environment |= dict.fromkeys(("JPY_INTERRUPT_EVENT", "IPY_INTERRUPT_EVENT"), str(self._event))
            self.handles = tuple(filter(None, (self._parent, self._event)))

        def interrupt(self) -> None:
            """Set the event that the kernel waits for."""
            if self._event is None:
                raise OSError("this session's kernels are interrupted by message")
            set_interrupt_event(self._event)

        def close(self) -> None:
            """Close the handles; what a kernel inherited stays its own."""
            for handle in self.handles:
                close_handle(handle)

    def close_handle(handle: int) -> None:
        """Close a handle that one of these functions returned."""
        _checked(_kernel32.CloseHandle(handle))

    def duplicate_parent_handle() -> int:
        """Return an inheritable handle of this process, for JPY_PARENT_PID.

        Raises:
            OSError: There was no handle to be had.
        """
        this = _kernel32.GetCurrentProcess()
        handle = wintypes.HANDLE()
        _checked(_kernel32.DuplicateHandle(this, this, this, ctypes.byref(handle), 0, True, _DUPLICATE_SAME_ACCESS))
        return _checked(handle.value)

    @attrs.frozen
    class Job:
        """A process and all its descendants. They are killed when the handle is closed, by our own end too."""

        handle: int

        def kill(self) -> None:
            """Kill every process of the job."""
            _checked(_kernel32.TerminateJobObject(self.handle, 1))

        def close(self) -> None:
            """Close the handle, and so kill what is left of the job."""
            close_handle(self.handle)

    def run_in_job(pid: int) -> Job:
        """Put a process that was made suspended into a new job, and let it run: all that it starts is in the job too.

        A program that starts another one at once, as the python.exe of a virtual environment does, would be too fast
        for a job that is made while it runs.

        Raises:
            OSError: There was no handle to be had. The process is as it was.
        """
        job = Job(_checked(_kernel32.CreateJobObjectW(None, None)))
        try:
            limits = _ExtendedLimits()
            limits.basic.limit_flags = _KILL_ON_JOB_CLOSE
            _checked(
                _kernel32.SetInformationJobObject(
                    job.handle, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
                )
            )
            access = _PROCESS_TERMINATE | _PROCESS_SET_QUOTA | _PROCESS_SUSPEND_RESUME
            process = _checked(_kernel32.OpenProcess(access, False, pid))
            try:
                _checked(_kernel32.AssignProcessToJobObject(job.handle, process))
                if status := _ntdll.NtResumeProcess(process):
                    raise ctypes.WinError(_ntdll.RtlNtStatusToDosError(status))
            finally:
                close_handle(process)
        except OSError:
            job.close()
            raise
        return job

    def _checked(result: int | None) -> int:
        """Return what a Win32 function returned; raise its error where that is zero or NULL."""
        if not result:
            raise ctypes.WinError(ctypes.get_last_error())
        return result

"""Put first on PYTHONPATH, this forbids a process every socket: to Python at once, and on Linux to native code too."""

from __future__ import annotations

import ctypes
import platform
import struct
import sys
from typing import Any

FAMILIES = (2, 10)  # AF_INET, AF_INET6
SYSCALLS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}  # AUDIT_ARCH_*, number of socket(2)
ALLOW, EPERM = 0x7FFF0000, 0x00050001  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO | EPERM


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: no Internet socket is made, whatever for."""
    if event == "socket.__new__" and arguments[1] in FAMILIES:
        raise PermissionError("sockets are forbidden here")
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo"):
        raise PermissionError(f"{event} is forbidden here")


def forbid_in_kernel() -> bool:
    """A seccomp filter: socket(AF_INET or AF_INET6) fails with EPERM, in every thread and child to come."""
    if sys.platform != "linux" or platform.machine() not in SYSCALLS:
        return False
    arch, number = SYSCALLS[platform.machine()]

    def op(code: int, true: int, false: int, value: int) -> bytes:
        return struct.pack("HBBI", code, true, false, value)

    program = b"".join((
        op(0x20, 0, 0, 4), op(0x15, 0, 5, arch),  # another architecture: allow
        op(0x20, 0, 0, 0), op(0x15, 0, 3, number),  # another call: allow
        op(0x20, 0, 0, 16),  # its first argument, the family
        op(0x15, 2, 0, FAMILIES[0]), op(0x15, 1, 0, FAMILIES[1]),
        op(0x06, 0, 0, ALLOW), op(0x06, 0, 0, EPERM),
    ))  # fmt: skip
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, header, 0, 0) == 0


sealed = forbid_in_kernel()
sys.addaudithook(refuse)
print(f"sealed {'in the kernel' if sealed else 'in Python'}", file=sys.stderr)

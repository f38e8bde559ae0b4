"""A unit of systemd without systemd: its command and environment, below the limits that it sets.

    python -m tests.support.confined COMMAND…    run a command below the unit's filter of system calls

What it stands for: ProtectSystem=strict (a read-only root, but for the state and a folder for temporary files),
CapabilityBoundingSet=, NoNewPrivileges=, SystemCallFilter= and UMask=. DynamicUser=, RestrictAddressFamilies= and the
rest of Protect… are systemd's alone.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .server import ROOT

UNIT = ROOT / "deploy" / "pushserver.service"
ALLOW = 0x7FFF0000  # SCMP_ACT_ALLOW
REFUSE = 0x00050000 | errno.EPERM  # SCMP_ACT_ERRNO(EPERM)
READ_ONLY = 'for folder in "$STATE" "$TMPDIR"; do mount --bind "$folder" "$folder"; done; mount -o remount,bind,ro /'
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")


def settings(name: str) -> list[str]:
    """The values of a setting of the unit, in their order."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def command(state: Path, *more: str) -> list[str]:
    """The unit's command with this folder for its state, below its limits."""
    (started,) = settings("ExecStart")
    program, *arguments = started.replace("/var/lib/pushserver", str(state)).split()
    assert program == "/opt/pushserver/bin/pushserver"
    (mask,) = settings("UMask")
    setup = f'set -e; {READ_ONLY}; umask {mask}; exec "$@"'
    confined = (*WITHOUT_RIGHTS, sys.executable, "-m", "tests.support.confined")
    server = (sys.executable, "-m", "pushserver", *arguments, *more)
    return ["unshare", "--mount", "--", "sh", "-c", setup, "sh", *confined, *server]


def environment(state: Path, temporary: Path) -> dict[str, str]:
    """The variables of the unit, and those that `command` needs."""
    return {
        **dict(each.split("=", 1) for each in settings("Environment")),
        "STATE": str(state),
        "TMPDIR": str(temporary),
    }


def allowed() -> set[str]:
    """The system calls of the unit's filter: the first line allows, one with ~ takes away."""
    first, *others = settings("SystemCallFilter")
    assert all(other.startswith("~") for other in others)
    return _calls(first) - {call for other in others for call in _calls(other[1:])}


def _calls(group: str) -> set[str]:
    said = subprocess.run(
        ["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True
    ).stdout
    names = [line.strip() for line in said.splitlines()[1:] if line.strip() and "#" not in line]
    return {call for name in names for call in (_calls(name) if name.startswith("@") else {name})}


def filter_calls(names: Sequence[str]) -> None:
    """Refuse all system calls of this process and its children but these, with EPERM."""
    seccomp = ctypes.CDLL(ctypes.util.find_library("seccomp"), use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(REFUSE)))
    for name in names:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # else it is of another architecture
            assert seccomp.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), number, 0) == 0, name
    assert seccomp.seccomp_load(context) == 0


if __name__ == "__main__":
    calls = allowed()
    filter_calls([*calls])
    os.execvp(sys.argv[1], sys.argv[1:])

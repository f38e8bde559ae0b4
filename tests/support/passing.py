"""A service manager for one server: it passes a listener, as systemd does for a unit with a socket.

PASSED=DESCRIPTOR python -m tests.support.passing serve …
"""

import os
import sys

if __name__ == "__main__":
    os.dup2(int(os.environ.pop("PASSED")), 3)
    os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
    os.execv(sys.executable, [sys.executable, "-m", "pushserver", *sys.argv[1:]])

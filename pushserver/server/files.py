"""Files: how many descriptors a process may open, and what is reserved of them.

Each connection is an open file, and so are the worker's connections to the store. A worker that has used them all up
can accept no connection: probes, publishers and readers are reset without an answer or a line in the log. So readers
leave a reserve to all others, and connections leave a part of it to the worker's own files.
"""

from __future__ import annotations

import resource

RESERVE = 512  # files that readers leave free, at most a quarter of the limit
OWN_SHARE = 4  # of the reserve, one part in so many is for the worker's own files


def raise_file_limit() -> None:
    """Raise the limit of open files to the hard limit, for the workers too: each reader is an open file."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def file_limit() -> int | None:
    """The number of files that this process may open; None without a limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if limit == resource.RLIM_INFINITY else limit


def most_readers(readers: int, limit: int | None) -> int:
    """The number of readers that a worker accepts, at most `readers`, within a limit of open files."""
    return readers if limit is None else max(1, min(readers, limit - _reserve(limit)))


def files_for(readers: int) -> int:
    """The least limit of open files with which a worker accepts so many readers."""
    return min(readers + RESERVE, 4 * (readers - 1) // 3 + 1)


def last_file(limit: int | None) -> int | None:
    """The descriptor from which on a new connection is refused; None without a limit.

    The kernel gives a file the lowest free number, so all below it are in use then.
    """
    return None if limit is None else limit - _reserve(limit) // OWN_SHARE


def _reserve(limit: int) -> int:
    return min(RESERVE, limit // 4)

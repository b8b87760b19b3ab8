"""Writing files so that nothing is lost or half-written."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile


def cache_folder() -> pathlib.Path:
    """Return the folder of what can be made again: below `$XDG_CACHE_HOME`, or ~/.cache. It may not exist yet.

    >>> cache_folder().name
    'minigraph'
    """
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(root, "minigraph")


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> pathlib.Path:
    """Write a file whole or not at all: temporary file in the same folder, fsync, rename, fsync of the folder.

    Whatever stood at `path` stays until the new content is on the disk. Raises OSError; then no litter is left.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(f"{folder}/a.txt", "hello").read_text()
    'hello'
    """
    target = pathlib.Path(path)
    content = data.encode() if isinstance(data, str) else data
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:50]}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(target))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)
    return target


def _mode(target: pathlib.Path) -> int:
    """Return the permissions of the file that is replaced, or those of an ordinary new file."""
    with contextlib.suppress(FileNotFoundError):
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _sync_folder(folder: pathlib.Path) -> None:
    """Make the rename itself durable, where the system lets folders be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""A folder that one program uses at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path


class FolderInUseError(Exception):
    """Another program uses the folder. The message is what that program said of itself."""


class ExclusiveFolder:
    """Makes a folder and keeps other programs out of it. A context manager.

    The operating system's lock on a file in it ends with this program, however that ends, so none is ever stale.

    :param folder: where the file ``lock`` goes; nothing else in it is touched.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Take the folder.

        :raises FolderInUseError: another program has it.
        :raises OSError: it cannot be made or written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context((self.folder / "lock").open("a+"))
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._file.seek(0)
                raise FolderInUseError(self._file.read()) from None
            self.say(f"process {os.getpid()}")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def say(self, text: str) -> None:
        """Replace the line that describes this program to others."""
        self._file.truncate(0)
        self._file.write(text)
        self._file.flush()

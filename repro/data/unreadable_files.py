"""Files that become unreadable after they were listed, and the files of the same class that replace them."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from repro.data.listing import tolerated
from repro.distributed import World
from repro.errors import UnreadableError, UserError

T = TypeVar("T")

NOT_COUNTED = -100  # label of a test file that another one replaces; torch's cross entropy ignores it


class UnreadableFiles:
    """The unreadable files of a split.

    `marks`, uint8 (files,), is 1 for each of them. All loader workers of a rank share it.
    """

    def __init__(self, files: int, unreadable: Iterable[int] = ()) -> None:
        # Forked workers share anonymous memory. Unlike torch's shared tensors, it takes no space in /dev/shm.
        self.marks = torch.frombuffer(mmap.mmap(-1, max(1, files)), dtype=torch.uint8)[:files]
        for index in unreadable:
            self.marks[index] = 1

    def read(
        self, index: int, labels: Tensor, positions: Tensor, read: Callable[[int], T], is_training: bool
    ) -> tuple[T, int]:
        """Return `read(index)` and its label or, if it raises `UnreadableError`, the next readable file of the class.

        All other files keep their indices, so a resumed run sees the same images as an uninterrupted one. A test file
        that replaces another one has the label `NOT_COUNTED`, because it is counted at its own index.

        Args:
            index: File to read.
            labels: Class of each file that may be read, int64 (n,).
            positions: Position in `marks` of each file that may be read, int64 (n,).
            read: Reads a file by its index.
            is_training: Whether the files are trained on.

        Raises:
            UserError: If no file of the class is left, or if more files are unreadable than `tolerated`.
        """
        label = int(labels[index])
        instead = "the next file of its class replaces it" if is_training else "evaluations leave it out"
        candidate = index
        for _ in range(len(labels)):
            position = int(positions[candidate])
            if labels[candidate] == label and not self.marks[position]:
                try:
                    return read(candidate), label if is_training or candidate == index else NOT_COUNTED
                except UnreadableError as error:
                    self._mark(position, error, instead)
            candidate = (candidate + 1) % len(labels)
        raise UserError(f"no file of class {label} can be read any more; restore the files")

    def _mark(self, position: int, error: UnreadableError, instead: str) -> None:
        self.marks[position] = 1
        count, limit = int(self.marks.sum()), tolerated(len(self.marks))
        if count > limit:
            raise UserError(
                f"{error}; {count} files have become unreadable since they were listed, at most {limit} may; "
                "repro doctor --data lists all. If they were whole when the run started, restore them and launch "
                "again; otherwise, restore or remove them, and remove the folder of the run"
            ) from None
        print(f"{error}; {instead}", file=sys.stderr, flush=True)


def count_unreadable(splits: Sequence[UnreadableFiles], world: World) -> int:
    """Count the files that became unreadable on any rank. All ranks have to call this."""
    marks = (world.total(split.marks.to(world.device, torch.int64)) for split in splits)
    return sum(int((ranks > 0).sum()) for ranks in marks)

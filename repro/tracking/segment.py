"""Whether an offline segment is whole. The client says nothing when a full disk swallows what it writes."""

from __future__ import annotations

import time
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record as WandbRecord

# The client's transaction log: 7 bytes of file header, then blocks of 32 KiB in the framing of LevelDB's log; a piece
# is checksum (4), length (2), type (1: whole, 2: first, 3: middle, 4: last), data.
_BLOCK = 32 * 1024
_FILE_HEADER = 7
_PIECE_HEADER = 7
_WHOLE, _FIRST, _LAST = 1, 2, 4
_LOOK_BACK_BLOCKS = 64
_POLL_S = 0.02


def offline_runs(record: Path) -> list[Path]:
    """The offline segments that attempts have left, oldest first."""
    return sorted((record / "wandb").glob("offline-run-*"))


def becomes_whole(segment: Path, wait_s: float) -> bool:
    """Whether the segment is whole within `wait_s`: the client ends a run a moment before its file is written."""
    until = time.monotonic() + wait_s
    while not is_whole(segment):
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_S)
    return True


def is_whole(segment: Path) -> bool:
    """Whether the segment's log ends as a finished run's does: with the record of its exit."""
    logs = list(segment.glob("run-*.wandb"))
    return len(logs) == 1 and any(_is_exit(data) for data in _last_records(logs[0]))


def _last_records(log: Path) -> list[bytes]:
    """The records that begin in the log's last blocks."""
    with log.open("rb") as stream:
        size = stream.seek(0, 2)
        start = max(0, (size // _BLOCK - _LOOK_BACK_BLOCKS) * _BLOCK)
        stream.seek(start)
        data = stream.read()
    records: list[bytes] = []
    pieces: list[bytes] | None = None
    at = _FILE_HEADER if start == 0 else 0
    while at + _PIECE_HEADER <= len(data):
        left_in_block = _BLOCK - at % _BLOCK
        if left_in_block < _PIECE_HEADER:
            at += left_in_block
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        piece = data[at + _PIECE_HEADER : at + _PIECE_HEADER + length]
        at += _PIECE_HEADER + length
        if len(piece) < length:
            break
        if kind in (_WHOLE, _FIRST):
            pieces = []
        if pieces is not None:
            pieces.append(piece)
            if kind in (_WHOLE, _LAST):
                records.append(b"".join(pieces))
                pieces = None
    return records


def _is_exit(data: bytes) -> bool:
    record = WandbRecord()
    record.ParseFromString(data)
    return bool(record.WhichOneof("record_type") == "exit")

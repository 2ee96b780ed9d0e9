"""Fingerprints of data sets in files, which tell whether a result belongs to the data at hand.

A fingerprint is 16 hex digits of the names, classes and sizes of all files, a hyphen, and 8 of the contents of a sample
of them. Reading all contents would take longer than many runs; exports of one size (BMP, PPM) differ in nothing else.
Fingerprints of earlier versions have no second part.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

from repro.data.listing import STAT_THREADS, Listing
from repro.errors import UserError

SAMPLED = 256  # files of each split whose contents are compared, evenly spaced


def fingerprint(class_names: Sequence[str], *listings: Listing) -> str:
    """Return the fingerprint of listed files, with classes as indices into `class_names`.

    Files in shards have the fingerprint of the folder that was packed. Raises `UserError` for a file that is gone.
    """
    names_and_sizes, contents = blake2b(digest_size=8), blake2b(digest_size=4)
    for listing in listings:
        names_and_sizes.update("\0".join(listing.class_names()).encode(errors="surrogateescape") + b"\n")
        for name, label, size in zip(listing.names, listing.labels(class_names), listing.lengths, strict=True):
            names_and_sizes.update(f"{name}\0{label}\0{size}\n".encode(errors="surrogateescape"))
        for digest in _sample(listing):
            contents.update(digest)
    return f"{names_and_sizes.hexdigest()}-{contents.hexdigest()}"


def is_same_data(one: str, other: str) -> bool:
    """Return whether two fingerprints are of the same data, as far as both tell."""
    contents, other_contents = one.partition("-")[2], other.partition("-")[2]
    return has_same_files(one, other) and (not contents or not other_contents or contents == other_contents)


def has_same_files(one: str, other: str) -> bool:
    """Return whether names, classes and sizes of two fingerprints are the same, whatever the contents."""
    return one.partition("-")[0] == other.partition("-")[0]


def _sample(listing: Listing) -> list[bytes]:
    """Return a digest of each sampled file; an empty one if it cannot be read, which does not stop a run."""
    files = listing.files()
    count = min(SAMPLED, len(listing))

    def digest(number: int) -> bytes:
        try:
            return blake2b(files.read(number * len(listing) // count), digest_size=8).digest()
        except UserError:
            return b""

    with ThreadPoolExecutor(STAT_THREADS) as pool:  # a network file system answers many at once
        return list(pool.map(digest, range(count)))

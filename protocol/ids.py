"""Identifiers: how they look, how they sort, and which partition a conversation belongs to.

An id is a type prefix, an underscore, and 26 Crockford base-32 digits: 48 bits of Unix milliseconds, then 80 random bits (the ULID layout,
https://github.com/ulid/spec). Ids of one type therefore sort by birth, and a conversation's id can never be mistaken for a tenant's.
Time and randomness are the caller's: this module has neither.
"""

from zlib import crc32

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PARTITIONS = 1024
"""Fixed for life: a conversation's partition is stored with it and named by every fence (DESIGN, Store)."""

TENANT = "tnt"
CONVERSATION = "cnv"
WEBHOOK = "whk"
KEY = "key"
QUARANTINED = "qrt"

_PAIRS = [high + low for high in ALPHABET for low in ALPHABET]
_TRIPLES = [high + low for high in ALPHABET for low in _PAIRS]


def new_id(prefix: str, at: int, entropy: bytes) -> str:
    """Compose an id from `at` (Unix milliseconds, < 2**48) and 10 random bytes."""
    value = int.from_bytes(entropy, "big") | (at & 0xFFFFFFFFFFFF) << 80
    # 26 digits are 130 bits: three digits (15 bits) at a time, highest first, and two at the end.
    t = _TRIPLES
    return (
        f"{prefix}_{t[value >> 115]}{t[value >> 100 & 32767]}{t[value >> 85 & 32767]}{t[value >> 70 & 32767]}"
        f"{t[value >> 55 & 32767]}{t[value >> 40 & 32767]}{t[value >> 25 & 32767]}{t[value >> 10 & 32767]}{_PAIRS[value & 1023]}"
    )


def partition_of(stream: str) -> int:
    """Return the partition (0 … 1023) that owns a stream, for life. CRC-32, so every node and every release agrees."""
    return crc32(stream.encode()) % PARTITIONS

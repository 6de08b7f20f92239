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


def new_id(prefix: str, at: int, entropy: bytes) -> str:
    """Compose an id from `at` (Unix milliseconds, < 2**48) and 10 random bytes."""
    value = int.from_bytes(entropy, "big") | (at & 0xFFFFFFFFFFFF) << 80
    # 26 digits are 130 bits: two digits (10 bits) at a time, highest first.
    pairs = _PAIRS
    return f"{prefix}_" + "".join([pairs[value >> shift & 1023] for shift in range(120, -1, -10)])


def partition_of(stream: str) -> int:
    """Return the partition (0 … 1023) that owns a stream, for life. CRC-32, so every node and every release agrees."""
    return crc32(stream.encode()) % PARTITIONS

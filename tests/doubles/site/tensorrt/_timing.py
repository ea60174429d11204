"""Timing caches of the double: entries by key, and a header that tells release and device."""

from __future__ import annotations

import json

from double_settings import setting

from tensorrt._core import IHostMemory

_MAGIC = b"DOUBLE TIMING CACHE\n"


class ITimingCache:
    def __init__(self, *args: object, **kwargs: object) -> None:
        self._version: str = setting("version")
        self._entries: dict[str, int] = {}

    def serialize(self) -> IHostMemory:
        content = {"version": self._version, "entries": dict(sorted(self._entries.items()))}
        return IHostMemory(_MAGIC + json.dumps(content).encode())

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        """Entries that are there already stay as they are; a cache of another release adds nothing."""
        if input_cache._version != self._version:
            return False
        self._entries = input_cache._entries | self._entries
        return True

    def reset(self) -> bool:
        self._entries.clear()
        return True


def read(data: bytes) -> ITimingCache | None:
    """The cache that ``serialize`` wrote; an empty one from anything else, as TensorRT-RTX 1.7.1 was seen to do."""
    cache = ITimingCache()
    try:
        content = json.loads(data.removeprefix(_MAGIC)) if data.startswith(_MAGIC) else {}
        cache._version, cache._entries = str(content["version"]), dict(content["entries"])
    except (ValueError, LookupError, TypeError):
        return ITimingCache()
    return cache

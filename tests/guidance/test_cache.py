from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fusionblocks.guidance._cache import STALE_SECONDS, DiskCache, content_key


def python(code: str, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_returns_what_was_put(tmp_path):
    cache = DiskCache(tmp_path / "new" / "folder")
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(7, np.uint8), "c": np.zeros((0, 3), np.float16)}
    assert cache.get("key") is None
    cache.put("key", arrays)
    found = DiskCache(tmp_path / "new" / "folder").get("key")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    cache.put("key", {"a": np.ones(1)})
    assert cache.get("key").keys() == {"a"}
    assert [path.name for path in cache.folder.iterdir()] == ["key.zip"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "array"])
def test_a_damaged_entry_is_none_and_goes(tmp_path, damage):
    cache = DiskCache(tmp_path)
    cache.put("key", {"a": np.random.default_rng(0).random(1000)})
    path = tmp_path / "key.zip"
    whole = path.read_bytes()
    if damage == "array":  # a file of NumPy, but not of ours
        with path.open("wb") as file:
            np.save(file, np.arange(3))
    else:
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 0xFF
        path.write_bytes(
            {"cut": whole[: len(whole) // 2], "flipped": bytes(flipped), "empty": b"", "text": b"x"}[damage]
        )
    assert cache.get("key") is None
    assert not path.exists()
    cache.put("key", {"a": np.ones(2)})
    np.testing.assert_array_equal(cache.get("key")["a"], np.ones(2))


WRITER = """
import sys
import numpy as np
from fusionblocks.guidance._cache import DiskCache
cache, value, seen = DiskCache(sys.argv[1]), int(sys.argv[2]), set()
for turn in range(60):
    cache.put("shared", {"a": np.full(20000 + value, value), "b": np.array(value)})
    found = cache.get("shared")
    assert found is not None
    assert len(found["a"]) == 20000 + found["b"] and (found["a"] == found["b"]).all()
    seen.add(int(found["b"]))
    cache.put(f"own-{value}-{turn}", {"a": np.array(turn)})
print(len(seen))
"""


def test_concurrent_writers_leave_whole_entries(tmp_path):
    writers = [python(WRITER, tmp_path, value) for value in range(3)]
    results = [writer.communicate(timeout=240) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0], [errors for _, errors in results]
    cache = DiskCache(tmp_path)
    assert int(cache.get("shared")["b"]) in range(3)
    assert all(int(cache.get(f"own-{value}-{turn}")["a"]) == turn for value in range(3) for turn in range(60))
    assert not list(tmp_path.glob(".*"))


def test_nothing_is_parsed_to_read(tmp_path, monkeypatch):
    """Two threads that parse code at once raise SystemError in Python before 3.11.9; NumPy parses its headers."""
    cache = DiskCache(tmp_path)
    cache.put("key", {"a": np.arange(5)})
    with monkeypatch.context() as patch:
        patch.delattr("ast.parse")
        found = cache.get("key")
    np.testing.assert_array_equal(found["a"], np.arange(5))


SLOW_WRITER = """
import sys
import numpy as np
from fusionblocks.guidance._cache import DiskCache
cache = DiskCache(sys.argv[1])
cache.put("key", {"a": np.random.default_rng(0).random(30_000_000)})
"""


@pytest.mark.parametrize("before", [True, False])
def test_a_writer_killed_in_mid_write_harms_nothing(tmp_path, before):
    cache = DiskCache(tmp_path)
    if before:
        cache.put("key", {"a": np.arange(5)})
    writer = python(SLOW_WRITER, tmp_path)
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size > 1 << 20 for path in tmp_path.glob(".*.tmp")):
        assert writer.poll() is None, writer.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert writer.returncode == -signal.SIGKILL

    (left,) = tmp_path.glob(".*.tmp")  # it was in the middle of it
    found = cache.get("key")
    if before:
        np.testing.assert_array_equal(found["a"], np.arange(5))
    else:
        assert found is None
    cache.put("key", {"a": np.ones(3)})
    np.testing.assert_array_equal(cache.get("key")["a"], np.ones(3))

    DiskCache(tmp_path)
    assert left.exists(), "a young temporary file may be another writer's"
    old = time.time() - STALE_SECONDS - 60
    os.utime(left, (old, old))
    DiskCache(tmp_path)
    assert not left.exists()


def test_a_failed_write_leaves_nothing(tmp_path):
    cache = DiskCache(tmp_path)
    with pytest.raises(TypeError, match="a must be an array"):
        cache.put("key", {"a": np.array([object()])})
    assert list(tmp_path.iterdir()) == []


def test_the_key_follows_the_content():
    x = torch.arange(12.0).reshape(3, 4)
    key = content_key(x, model="a", size=224)
    assert len(key) == 64
    assert key == content_key(x.numpy(), size=224, model="a")
    assert key == content_key(x.T.contiguous().T, model="a", size=224)
    others = [
        content_key(x, model="b", size=224),
        content_key(x, model="a"),
        content_key(x.reshape(4, 3), model="a", size=224),
        content_key(x.double(), model="a", size=224),
        content_key(x.bfloat16(), model="a", size=224),
        content_key(x + 1e-6, model="a", size=224),
        content_key(x, x, model="a", size=224),
        content_key(model="a", size=224),
        content_key(torch.tensor(0.0), model="a", size=224),
    ]
    assert len({key, *others}) == 10


def test_wrong_arguments_are_refused_by_name(tmp_path: Path):
    cache = DiskCache(tmp_path)
    for key in ("../key", "", "a/b", ".hidden"):
        with pytest.raises(ValueError, match="key"):
            cache.get(key)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="folder"):
        DiskCache(tmp_path / "file")
    with pytest.raises(TypeError, match="list"):
        content_key([1.0])
    with pytest.raises(TypeError):
        content_key(torch.ones(1), setting=object())

from pathlib import Path

import pytest

from jobwatt.host.memory_stat import parse_anonymous, read_anonymous


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"anon 4096\nfile 8192\nanon_thp 7\n", 4096),
        (b"cache 1\nrss 5\nrss_huge 0\ntotal_cache 9\ntotal_rss 12288\ntotal_rss_huge 0\n", 12288),
        (b"anon -1\n", None),
        (b"anon x\ntotal_rss \n", None),
        (b"", None),
    ],
)
def test_anonymous_memory_of_either_version(data: bytes, expected: int | None) -> None:
    """With all groups below; what is no number is not told."""
    assert parse_anonymous(data) == expected


def test_a_group_without_the_controller_tells_nothing(tmp_path: Path) -> None:
    """Version 2 has no such file there."""
    assert read_anonymous(str(tmp_path)) is None
    (tmp_path / "memory.stat").write_text("anon 7\n")
    assert read_anonymous(str(tmp_path)) == 7

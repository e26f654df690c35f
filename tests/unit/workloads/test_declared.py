from __future__ import annotations

import pytest

from jobwatt.workloads.contract import Facts
from jobwatt.workloads.declared import DeclaredResolver, declared_uid


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bert", "run:bert"),
        ("  bert base  ", "run:bert base"),
        ("lr=0.1,seed=7", "run:lr=0.1,seed=7"),
        ("slurm:7", "run:slurm:7"),
        ("modèle-日本", "run:modèle-日本"),
        ('a"b{c="d"}', 'run:a"b{c="d"}'),
        ("a\nb", r"run:a\nb"),
        ("a\x00\x1b[31mb", r"run:a\x00\x1b[31mb"),
        ("a\u202eb\u200bc\u00a0d", r"run:a\u202eb\u200bc\xa0d"),
        ("a\ufffdb", "run:a\ufffdb"),
        ("\ud800", r"run:\ud800"),
        ("", None),
        (" \n\t ", None),
        ("x" * 128, f"run:{'x' * 128}"),
    ],
)
def test_names(value: str, expected: str | None) -> None:
    """What is printable stays as it is, the rest is escaped."""
    assert DeclaredResolver().job_uid(Facts({}, 1000, {"JOBWATT_JOB": value})) == expected


def test_long_names_are_cut_and_stay_apart() -> None:
    """Names that differ beyond the cut are two jobs; the same name is one."""
    names = [declared_uid(f"{'x' * 500}{end}") for end in ("a", "b", "a")]
    lengths = [len(name or "") for name in names]
    assert (lengths, len(set(names))) == ([132, 132, 132], 2)


def test_without_a_variable() -> None:
    """Who declares nothing has no declared job."""
    assert DeclaredResolver().job_uid(Facts({}, 1000)) is None

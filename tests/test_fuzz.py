"""A bounded sample of `make fuzz`."""

from tests.fuzz import fuzz, simulate


def test_damaged_files_are_read_or_refused():
    counts, findings = fuzz(210, seed=1)
    assert not findings
    assert sum(counts.values()) == 210
    assert min(sum(n for (_, found), n in counts.items() if found == kind)
               for kind in ("read", "refused")) > 40  # fmt: skip


def test_memory_and_open_files_do_not_grow_with_a_video():
    seen = simulate(0.1)
    assert seen[-1][0] < 1.05 * seen[1][0]
    assert seen[-1][1] <= seen[0][1]

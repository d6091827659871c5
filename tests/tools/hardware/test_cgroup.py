"""Container limits from invented /proc and /sys trees."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oomdoctor.hardware.detect.cgroup import Limit, memory_limits
from oomdoctor.hardware.detect.memory import Machine, read_ram
from oomdoctor.hardware.detect.system import System

GIB = 1 << 30
V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_NO_LIMIT = 9223372036854771712


def v1_mount(root: str = "/") -> str:
    return f"36 25 0:31 {root} /sys/fs/cgroup/memory rw,relatime shared:15 - cgroup cgroup rw,memory"


def meter() -> Machine:
    return Machine(total=64 * GIB, available=60 * GIB, swap=8 * GIB)


def test_v2_at_the_root_of_a_container(machine):
    system = machine(
        {
            "/proc/self/cgroup": "0::/",
            "/proc/self/mountinfo": V2_MOUNT,
            "/sys/fs/cgroup/memory.max": 46 * GIB,
            "/sys/fs/cgroup/memory.current": 10 * GIB,
            "/sys/fs/cgroup/memory.stat": f"anon {4 * GIB}\ninactive_file {6 * GIB}\nactive_file 0",
        }
    )
    # 6 of the 10 GiB are file pages that the kernel drops first: they do not count.
    assert memory_limits(system) == (Limit(46 * GIB, 4 * GIB),)
    ram, notes = read_ram(system, meter)
    assert (ram.total_bytes, ram.limit_bytes, ram.available_bytes) == (64 * GIB, 46 * GIB, 42 * GIB)
    assert ram.swap_bytes == 8 * GIB
    assert any("46.0 GiB" in note and "64.0 GiB" in note for note in notes)


def test_v2_nested_the_tightest_level_counts(machine):
    group = "/sys/fs/cgroup/user.slice/user-1000.slice/job.scope"
    system = machine(
        {
            "/proc/self/cgroup": "0::/user.slice/user-1000.slice/job.scope",
            "/proc/self/mountinfo": V2_MOUNT,
            f"{group}/memory.max": 32 * GIB,
            f"{group}/memory.current": 1 * GIB,
            # The slice above allows more, but its other members have used nearly all of it.
            "/sys/fs/cgroup/user.slice/user-1000.slice/memory.max": 40 * GIB,
            "/sys/fs/cgroup/user.slice/user-1000.slice/memory.current": 36 * GIB,
            "/sys/fs/cgroup/user.slice/memory.max": "max",
        }
    )
    ram, _ = read_ram(system, meter)
    assert ram.limit_bytes == 32 * GIB
    assert ram.available_bytes == 4 * GIB


def test_v2_without_a_limit(machine):
    system = machine(
        {"/proc/self/cgroup": "0::/a", "/proc/self/mountinfo": V2_MOUNT, "/sys/fs/cgroup/a/memory.max": "max"}
    )
    ram, notes = read_ram(system, meter)
    assert ram.limit_bytes is None
    assert ram.available_bytes == 60 * GIB
    assert notes == ()


def test_v1_in_docker_without_a_namespace(machine):
    """The group is named from the host's root, while the container sees it at the mount point."""
    system = machine(
        {
            "/proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/docker/abc",
            "/proc/self/mountinfo": v1_mount("/docker/abc"),
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": 16 * GIB,
            "/sys/fs/cgroup/memory/memory.usage_in_bytes": 9 * GIB,
            "/sys/fs/cgroup/memory/memory.stat": f"inactive_file 0\ntotal_inactive_file {2 * GIB}",
        }
    )
    assert memory_limits(system) == (Limit(16 * GIB, 7 * GIB),)
    assert read_ram(system, meter)[0].available_bytes == 9 * GIB


def test_v1_limit_of_a_level_that_is_not_visible(machine):
    system = machine(
        {
            "/proc/self/cgroup": "4:memory:/kubepods/pod1/c",
            "/proc/self/mountinfo": v1_mount("/kubepods/pod1/c"),
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": V1_NO_LIMIT,
            "/sys/fs/cgroup/memory/memory.stat": f"hierarchical_memory_limit {24 * GIB}",
        }
    )
    assert read_ram(system, meter)[0].limit_bytes == 24 * GIB


def test_v1_unlimited_is_no_limit(machine):
    system = machine(
        {
            "/proc/self/cgroup": "4:memory:/",
            "/proc/self/mountinfo": v1_mount(),
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": V1_NO_LIMIT,
        }
    )
    assert read_ram(system, meter)[0].limit_bytes is None


def test_hybrid_machines_have_both(machine):
    """systemd's hybrid layout: v2 is mounted for names only, memory is still v1."""
    system = machine(
        {
            "/proc/self/cgroup": "4:memory:/job\n0::/job",
            "/proc/self/mountinfo": f"{v1_mount()}\n31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
            "/sys/fs/cgroup/memory/job/memory.limit_in_bytes": 8 * GIB,
            "/sys/fs/cgroup/memory/job/memory.usage_in_bytes": 1 * GIB,
        }
    )
    ram, _ = read_ram(system, meter)
    assert (ram.limit_bytes, ram.available_bytes) == (8 * GIB, 7 * GIB)


def test_a_group_outside_of_this_namespace(machine):
    system = machine(
        {
            "/proc/self/cgroup": "0::/../../other",
            "/proc/self/mountinfo": V2_MOUNT,
            "/sys/fs/cgroup/memory.max": 4 * GIB,
        }
    )
    assert memory_limits(system) == (Limit(4 * GIB, 0),)


def test_more_used_than_allowed_leaves_nothing(machine):
    system = machine(
        {
            "/proc/self/cgroup": "0::/",
            "/proc/self/mountinfo": V2_MOUNT,
            "/sys/fs/cgroup/memory.max": 2 * GIB,
            "/sys/fs/cgroup/memory.current": 3 * GIB,
        }
    )
    assert read_ram(system, meter)[0].available_bytes == 0


def test_no_cgroups_at_all(machine):
    assert memory_limits(machine()) == ()


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_have_no_limit(machine, platform):
    assert read_ram(machine(platform=platform), meter)[0].limit_bytes is None


@pytest.mark.parametrize(
    ("files", "platform", "cap"),
    [
        ({"/proc/version": "Linux version 5.15.167.4-microsoft-standard-WSL2"}, "linux", 500 << 20),
        ({"/proc/version": "Linux version 6.8.0-generic"}, "linux", None),
        ({}, "win32", 32 * GIB),
        ({}, "darwin", None),
    ],
)
def test_pinned_cap(machine, files, platform, cap):
    ram, notes = read_ram(machine(files, platform=platform), meter)
    assert ram.pinned_cap_bytes == cap
    assert bool(notes) == (cap is not None)


def test_this_machine():
    ram, _ = read_ram(System())
    assert 0 <= ram.available_bytes <= ram.total_bytes
    assert ram.limit_bytes is None or ram.limit_bytes < ram.total_bytes


lines = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\x85"), max_size=60), max_size=5)


@given(group=lines, mounts=lines)
def test_any_text_in_proc_is_survived(group, mounts):
    class Garbage(System):
        def read(self, name: str) -> str | None:
            return "\n".join({"/proc/self/cgroup": group, "/proc/self/mountinfo": [V2_MOUNT, *mounts]}.get(name, []))

    assert all(limit.room_bytes >= 0 for limit in memory_limits(Garbage()))

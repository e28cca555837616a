"""Host memory: against the real kernel of this machine, and against trees of files that tests lay out."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import pytest

from tf_mem_magic.sources import Unavailable, host
from tf_mem_magic.sources._cgroup import GroupUse

MIB = 2**20
PAGE = mmap.PAGESIZE
UNLIMITED_1 = "9223372036854771712"

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux's /proc is what is tested")


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def process(hwm: int = 300, rss: int = 200, total: int = 16000) -> dict[str, str]:
    """Lay out the files of a process with these sizes in MiB."""
    return {
        "proc/self/statm": f"9999 {rss * MIB // PAGE} 5 1 0 70 0\n",
        "proc/self/status": f"Name:\tpython\nVmHWM:\t {hwm * 1024} kB\nVmRSS:\t {rss * 1024} kB\nThreads:\t4\n",
        "proc/meminfo": f"MemTotal:       {total * 1024} kB\nMemFree:        1 kB\n",
    }


def version_2(path: str, limits: dict[str, str], mounted: str = "/") -> dict[str, str]:
    mountinfo = f"42 31 0:29 {mounted} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup rw,nsdelegate\n"
    files = {f"sys/fs/cgroup/{folder}memory.max": text for folder, text in limits.items()}
    return {"proc/self/cgroup": f"0::{path}\n", "proc/self/mountinfo": mountinfo} | files


def version_1(path: str, limits: dict[str, str], mounted: str = "/") -> dict[str, str]:
    mountinfo = (
        f"40 31 0:28 {mounted} /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        f"41 31 0:29 {mounted} /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n"
    )
    files = {f"sys/fs/cgroup/memory/{folder}memory.limit_in_bytes": text for folder, text in limits.items()}
    return {"proc/self/cgroup": f"9:cpu:{path}\n4:memory:{path}\n", "proc/self/mountinfo": mountinfo} | files


def limit_of(root: Path):
    return host.open(root).limits()["host:rss"]


@linux
def test_the_resident_bytes_are_those_that_psutil_reads():
    import psutil

    read = host.open().read()["host:rss"]
    assert abs(read - psutil.Process().memory_info().rss) < 16 * MIB


@linux
def test_nested_windows_have_the_kernels_own_peaks():
    source = host.open()
    source.begin_window()
    if not source.end_window():
        pytest.skip("this system does not permit resetting the kernel's peak")
    base = source.read()["host:rss"]
    source.begin_window()
    large = bytearray(os.urandom(1)) * (200 * MIB)
    del large
    source.begin_window()
    small = bytearray(os.urandom(1)) * (60 * MIB)
    del small
    inner, outer = source.end_window()["host:rss"], source.end_window()["host:rss"]
    grown = [round((peak - base) / MIB / 20) * 20 for peak in (inner[0], outer[0])]
    assert ([60, 200], "counter", "counter") == (grown, inner[1], outer[1])


def test_the_sizes_in_the_kernels_files_become_bytes(tmp_path):
    source = host.open(write(tmp_path, process(rss=200)))
    assert {"host:rss": 200 * MIB} == source.read()


def test_a_peak_that_cannot_be_reset_is_not_given(tmp_path):
    root = write(tmp_path, process())
    (root / "proc/self/clear_refs").mkdir()
    source = host.open(root)
    source.begin_window()
    assert {} == source.end_window()


def test_a_reset_that_the_system_ignores_gives_no_peak(tmp_path):
    source = host.open(write(tmp_path, process(hwm=300, rss=200) | {"proc/self/clear_refs": ""}))
    source.begin_window()
    assert {} == source.end_window()


def test_a_peak_that_needs_no_reset_counts(tmp_path):
    root = write(tmp_path, process(hwm=200, rss=200) | {"proc/self/clear_refs": ""})
    source = host.open(root)
    source.begin_window()
    write(root, process(hwm=250, rss=210))
    assert {"host:rss": (250 * MIB, "counter")} == source.end_window()


def test_a_system_without_proc_is_read_by_psutil(tmp_path):
    source = host.open(tmp_path)
    source.begin_window()
    assert (True, {}) == (source.read()["host:rss"] > MIB, source.end_window())


def test_a_process_file_that_makes_no_sense_says_so(tmp_path):
    answer = host.open(write(tmp_path, {"proc/self/statm": "nonsense\n"}))
    assert isinstance(answer, Unavailable)
    assert answer.reason.startswith("The memory of this process cannot be read (IndexError")


def test_a_source_that_works_again_has_no_trouble(tmp_path):
    root = write(tmp_path, process())
    source = host.open(root)
    write(root, {"proc/self/statm": ""})
    lost = (source.read(), source.trouble is None)
    write(root, process())
    assert (({}, False), {"host:rss": 200 * MIB}, None) == (lost, source.read(), source.trouble)


def test_without_a_control_group_the_machine_is_the_limit(tmp_path):
    assert (16000 * MIB, "device-total") == limit_of(write(tmp_path, process(total=16000)))


def test_the_tightest_ancestor_of_version_2_is_the_limit(tmp_path):
    limits = {"": "max\n", "user/": f"{2000 * MIB}\n", "user/nb/": f"{4000 * MIB}\n"}
    root = write(tmp_path, process() | version_2("/user/nb", limits))
    assert (2000 * MIB, "configured") == limit_of(root)


def test_a_container_with_its_own_view_of_version_2_is_limited_by_its_root(tmp_path):
    assert (512 * MIB, "configured") == limit_of(write(tmp_path, process() | version_2("/", {"": f"{512 * MIB}\n"})))


def test_a_container_that_sees_only_its_part_of_the_tree_is_limited(tmp_path):
    files = version_2("/docker/abc/job", {"job/": f"{700 * MIB}\n", "": "max\n"}, mounted="/docker/abc")
    assert (700 * MIB, "configured") == limit_of(write(tmp_path, process() | files))


def test_a_group_outside_of_what_is_mounted_counts_as_the_mounted_root(tmp_path):
    files = version_2("/../other", {"": f"{800 * MIB}\n"})
    assert (800 * MIB, "configured") == limit_of(write(tmp_path, process() | files))


def test_the_tightest_ancestor_of_version_1_is_the_limit(tmp_path):
    limits = {"": UNLIMITED_1, "docker/": f"{3000 * MIB}", "docker/abc/": UNLIMITED_1}
    root = write(tmp_path, process() | version_1("/docker/abc", limits))
    assert (3000 * MIB, "configured") == limit_of(root)


def test_the_huge_number_of_version_1_is_no_limit(tmp_path):
    root = write(tmp_path, process(total=900) | version_1("/", {"": UNLIMITED_1}))
    assert (900 * MIB, "device-total") == limit_of(root)


def test_a_version_1_hierarchy_without_memory_is_passed_over(tmp_path):
    files = version_1("/a", {"a/": f"{100 * MIB}"}) | {"proc/self/cgroup": "9:cpu:/a\n0::/\n"}
    assert (16000 * MIB, "device-total") == limit_of(write(tmp_path, process() | files))


def test_a_limit_above_the_machine_is_none(tmp_path):
    root = write(tmp_path, process(total=1000) | version_2("/", {"": f"{2000 * MIB}"}))
    assert (1000 * MIB, "device-total") == limit_of(root)


def test_the_group_is_as_full_as_the_kernel_judges_before_it_kills(tmp_path):
    files = version_2("/job", {"job/": f"{700 * MIB}"}) | {
        "sys/fs/cgroup/job/memory.current": f"{600 * MIB}\n",
        "sys/fs/cgroup/job/memory.stat": f"anon 1\ninactive_file {150 * MIB}\nactive_file 7\n",
    }
    assert GroupUse(450 * MIB, 700 * MIB) == host.used_by_group(write(tmp_path, files))


def test_the_group_of_version_1_counts_its_children_too(tmp_path):
    files = version_1("/job", {"job/": f"{700 * MIB}"}) | {
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{600 * MIB}\n",
        "sys/fs/cgroup/memory/job/memory.stat": f"inactive_file 1\ntotal_inactive_file {100 * MIB}\n",
    }
    assert GroupUse(500 * MIB, 700 * MIB) == host.used_by_group(write(tmp_path, files))


def test_a_group_that_cannot_be_read_is_unknown(tmp_path):
    root = write(tmp_path, version_2("/job", {"job/": f"{700 * MIB}"}))
    assert host.used_by_group(root) is None


def test_without_a_limit_there_is_no_group_to_be_near_to(tmp_path):
    assert host.used_by_group(write(tmp_path, process())) is None


def test_a_group_whose_limit_is_the_huge_number_limits_nothing(tmp_path):
    files = version_1("/", {"": UNLIMITED_1}) | {"sys/fs/cgroup/memory/memory.usage_in_bytes": "5\n"}
    files |= {"sys/fs/cgroup/memory/memory.stat": "total_inactive_file 1\n"}
    assert host.used_by_group(write(tmp_path, files)) is None


def test_a_descriptor_that_the_user_closed_and_reused_gives_no_wrong_number(tmp_path):
    source = host.open()
    try:
        before = source.read()["host:rss"]
        other = tmp_path / "other"
        other.write_text("1 2 3")
        stolen = os.open(other, os.O_RDONLY)
        os.dup2(stolen, source._file)
        after = source.read()["host:rss"]
        assert 0.5 * before < after < 2 * before
    finally:
        os.close(stolen)
        source.close()

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_mem_magic.core.recording import ChunkGroup, Dump, FailedRequest
from tf_mem_magic.diagnose.dump import (
    DumpSeparator,
    complete,
    device_of,
    find_regions,
    fragmentation,
    group_chunks,
    parse_dumps,
)

DATA = Path(__file__).resolve().parents[1] / "data"
CAPTURED = sorted(DATA.glob("dump-tf*.txt"))
NOT_DUMP = (b"cpu_feature_guard", b"To enable the following", b"WARNING: All log", b"op_kernel.cc", b"local_rendezvous")


@pytest.fixture(params=CAPTURED, ids=lambda path: path.stem)
def captured(request):
    return request.param.read_bytes()


def separate(pieces):
    separator = DumpSeparator()
    forwarded = b"".join(separator.feed(piece) for piece in pieces) + separator.finish()
    return forwarded, separator.dump_text


def dump_lines(data):
    lines = data.splitlines(keepends=True)
    return [line for line in lines if not any(mark in line for mark in NOT_DUMP)]


def test_the_dump_is_folded_and_nothing_else(captured):
    forwarded, folded = separate([captured])
    assert b"".join(line for line in captured.splitlines(True) if line not in dump_lines(captured)) == forwarded
    assert b"".join(dump_lines(captured)) == folded.encode()


@settings(max_examples=50)
@given(st.sampled_from(CAPTURED), st.lists(st.integers(0, 12_000), max_size=30))
def test_it_does_not_matter_in_what_pieces_the_bytes_arrive(path, cuts):
    data = path.read_bytes()
    ends = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    assert separate([data]) == separate([data[a:b] for a, b in pairwise(ends)])


def test_lines_of_others_in_the_middle_of_a_dump_are_forwarded(captured):
    lines = captured.splitlines(keepends=True)
    mixed = b"".join(line + b"worker %d: 50%%|##   |\n" % n for n, line in enumerate(lines))
    forwarded, folded = separate([mixed])
    mine = [b"worker %d: 50%%|##   |\n" % n for n in range(len(lines))]
    assert mine == [line for line in forwarded.splitlines(True) if line.startswith(b"worker")]
    assert b"".join(dump_lines(captured)) == folded.encode()


@given(st.binary(max_size=400), st.integers(0, 400))
def test_bytes_that_are_no_dump_come_out_as_they_went_in(data, cut):
    assert (data, "") == separate([data[:cut], data[cut:]])


@pytest.mark.parametrize(
    "line",
    [
        b"W tsl/framework/bfc_allocator.cc:296] Allocator (GPU_0_bfc) ran out of memory trying to allocate 2.00GiB with "
        b"freed_by_count=0. The caller indicates that this is not a failure, but this may mean that there could be "
        b"performance gains if more memory were available.\n",
        b"I tsl/framework/bfc_allocator.cc:177] Extending allocation by 2.00MiB bytes for GPU_0_bfc.\n",
        b"Limit:                        16777216\n",
        b"Current allocation summary follows.\n",
        b"\n",
    ],
)
def test_a_line_that_is_no_part_of_a_dump_is_forwarded(line):
    assert (line, "") == separate([line])


def test_an_unfinished_line_is_held_back_until_it_is_released():
    separator = DumpSeparator()
    assert b"" == separator.feed(b"\r 10%")
    assert separator.pending
    assert b"\r 10%" == separator.release()
    assert b"\r 20%" == separator.feed(b"\r 20%")
    assert b" done\n" == separator.feed(b" done\nnext")


def test_an_unfinished_line_of_a_dump_is_not_released():
    separator = DumpSeparator()
    separator.feed(b"I bfc_allocator.cc:1105] InUse at 7f76")
    assert b"" == separator.release()
    separator.feed(b"1 of size 256 next 1\n")
    assert "I bfc_allocator.cc:1105] InUse at 7f761 of size 256 next 1\n" == separator.dump_text


def test_only_the_newest_part_of_a_long_dump_is_kept():
    separator = DumpSeparator(keep=1000)
    for n in range(100):
        separator.feed(b"I bfc_allocator.cc:1105] InUse at 7f76 of size %d next 1\n" % n)
    assert len(separator.dump_text) <= 1000
    assert separator.dump_text.endswith("of size 99 next 1\n")


def test_the_chunks_of_a_captured_dump_add_up_to_what_is_in_use(captured):
    (dump,) = parse_dumps(captured.decode())
    assert dump.in_use == sum(group.bytes for group in dump.groups)


def test_a_captured_dump_is_read(captured):
    (dump,) = parse_dumps(captured.decode())
    assert "bfc_cpu_allocator_for_gpu" == dump.allocator
    assert "text" == dump.basis
    assert 16 * 2**20 == dump.limit
    assert 14 * 2**20 == dump.pool
    assert 64 * 2**20 == dump.requested
    assert "Fill" == dump.op
    assert 0 < dump.largest_free < dump.pool - dump.in_use
    assert fragmentation(dump.pool - dump.in_use, dump.largest_free) == dump.fragmentation


def test_the_regions_of_a_captured_dump_are_its_pool(captured):
    for dump in parse_dumps(captured.decode()):
        assert len(dump.regions) > 1  # the pool grew
        assert sum(dump.regions) == dump.pool


def test_chunks_that_touch_lie_in_one_region():
    assert find_regions([(0, 256), (256, 512), (4096, 1024), (5120, 256)]) == (768, 1280)
    assert find_regions([]) == ()


def test_the_exact_statistics_of_older_versions_agree_with_the_chunks():
    text = (DATA / "dump-tf2.16.1.txt").read_text()
    (dump,) = parse_dumps(text)
    stats = {name: int(value) for name, value in re.findall(r"^(InUse|MaxInUse|Limit): +(\d+)$", text, re.MULTILINE)}
    assert stats == {"Limit": dump.limit, "InUse": dump.in_use, "MaxInUse": dump.peak}


def test_two_dumps_in_one_text_are_both_read(captured):
    assert 2 * parse_dumps(captured.decode()) == parse_dumps(2 * captured.decode())


def test_a_dump_whose_beginning_is_lost_is_left_out(captured):
    text = captured.decode()
    assert () == parse_dumps(text[text.index("BFCAllocator dump") :])


def test_a_dump_that_ends_early_gives_what_is_there(captured):
    text = captured.decode()
    (dump,) = parse_dumps(text[: text.index("Bin (256)")])
    assert (None, None, None, ()) == (dump.limit, dump.in_use, dump.largest_free, dump.groups)


def test_chunks_are_added_up_by_operation_and_without_a_name_by_size():
    chunks = [("", 256, 12), ("", 256, 100), ("MatMul", 512, 500), ("MatMul", 1024, 1000), ("", 2048, 2048)]
    expected = (
        ChunkGroup("", 2048, 2048, 1),
        ChunkGroup("MatMul", 1536, 1500, 2),
        ChunkGroup("", 512, 112, 2),
    )
    assert expected == group_chunks(chunks)


@pytest.mark.parametrize(
    ("allocator", "device"),
    [
        ("GPU_0_bfc", "GPU:0"),
        ("GPU_11_bfc", "GPU:11"),
        ("PluggableDevice_1_bfc", "GPU:1"),
        ("cpu", "CPU:0"),
        ("mklcpu", "CPU:0"),
        ("bfc_cpu_allocator_for_gpu", "CPU:0"),
        ("gpu_host_bfc", "CPU:0"),
        ("something", None),
    ],
)
def test_an_allocators_name_tells_its_device(allocator, device):
    assert device == device_of(allocator)


def test_nothing_free_has_no_fragmentation():
    assert None is fragmentation(0, 0)


def test_the_text_tells_the_limit_that_the_structured_dump_leaves_out(captured):
    structured = Dump("bfc_cpu_allocator_for_gpu", "structured", in_use=5)
    filled = complete(structured, parse_dumps(captured.decode()))
    assert ("structured", 5, 16 * 2**20, "Fill") == (filled.basis, filled.in_use, filled.limit, filled.op)


def test_the_text_of_another_allocator_fills_nothing(captured):
    structured = Dump("GPU_0_bfc", "structured", in_use=5)
    assert structured == complete(structured, parse_dumps(captured.decode()))


def failures(data, step=1000):
    separator = DumpSeparator()
    for at in range(0, len(data), step):
        separator.feed(data[at : at + step])
    separator.finish()
    return separator.failures


def test_requests_that_got_no_memory_are_told_with_their_size_and_operation(captured):
    (dump,) = {(d.allocator, d.requested, d.op) for d in parse_dumps(captured.decode())}
    assert {FailedRequest(*dump)} == set(failures(captured))
    assert failures(captured) == failures(captured, 7)


def test_each_failure_counts_and_only_the_newest_are_kept(captured):
    assert 3 * len(failures(captured)) == len(failures(captured * 3))
    header = b"W bfc_allocator.cc:500] Allocator (cpu) ran out of memory trying to allocate 1.0KiB (rounded to %d)requested by op A\n"
    found = failures(b"".join(header % n for n in range(1, 1500)))
    assert (1000, 1499, "A") == (len(found), found[-1].bytes, found[-1].op)


def test_a_request_that_may_fail_is_no_failure():
    line = (
        b"W tsl/framework/bfc_allocator.cc:296] Allocator (GPU_0_bfc) ran out of memory trying to allocate 2.00GiB "
        b"(rounded to 2147483648)requested by op Conv2D with freed_by_count=0. The caller indicates that this is not a failure\n"
    )
    assert () == failures(line)


def test_what_the_profiler_says_is_dropped_where_it_is_ours():
    said = b"I0000 00:00:1.2   30 profiler_session.cc:117] Profiler session initializing.\n"
    said += (
        b"2025-01-01 0:0:0.1: I external/local_xla/xla/tsl/profiler/lib/profiler_session.cc:103] Profiler session.\n"
    )
    line = b"profiler_session.cc is a file\n"
    assert DumpSeparator(profiles=True).feed(b"one\n" + said + line) == b"one\n" + line
    assert DumpSeparator().feed(said) == said

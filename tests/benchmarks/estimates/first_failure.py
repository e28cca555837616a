"""What is estimated at a first failure, of models that no rule was made from, against what then happens.

``python -m tests.benchmarks.estimates.first_failure [--keep FOLDER] [NAME ...]`` prints a row for each model and change.
Processes measure the peak at one batch size each; a kernel then runs out of memory at the largest, with 0.8 of
what it needs or less, and runs the cell again with each change that its report proposes. ``--keep`` saves what was
found, and the report of the failure.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from tests.benchmarks.estimates.fresh_models import FRESH
from tests.benchmarks.estimates.unseen_models import UNSEEN, Unseen
from tests.benchmarks.memory_models import HEAD
from tests.kernel import Kernel, bfc, surviving
from tests.script import found_by
from tf_mem_magic.diagnose.room.search import batch_sizes

MIB = 1 << 20
SHARES = (0.8, 0.65, 0.5)
"""Of what a step needs, the part that there is: the first with which it fails."""

KEYS = ("smaller-batch", "accumulate-gradients", "rematerialize", "mixed-precision")
"""The changes that are measured, those last that stay with the model."""

MOST_TRIES = 4

MEASURE = """
import gc, json, os, sys
given = json.load(sys.stdin)
memory = lambda: tf.config.experimental.get_memory_info("CPU:0")
def measured(n):
    global model, x, y
    x, y = make(given["batch"])
    model = build()
    exec(given["cell"].format(batch=n), globals())
    peak = memory()["peak"]
    gc.collect()
    return peak, memory()["current"]
def in_a_process(n):
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, json.dumps(measured(n)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        found = json.loads(answer.read())
    os.wait()
    return found
found = {n: in_a_process(n) for n in given["batches"]}
print("FOUND" + json.dumps({"peaks": {n: peak for n, (peak, _) in found.items()}, "base": found[given["batch"]][1]}))
"""
"""Each batch size in a process of its own, which forks before TensorFlow begins: a pool keeps what other runs left."""

ESTIMATES = """
import json
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.diagnose.expected import expected
first = t.last_report()
def told(n):
    one = expected(first.recording, first.diagnosis, Effect(batch=(BATCH, n)))
    return one and (one.low, one.high)
def offer(p):
    one = p.estimate
    return {"key": p.key, "batch": p.effect.batch and p.effect.batch[1], "range": one and (one.low, one.high), "why": one and one.basis}
found = {"status": first.status}
if first.diagnosis is not None:
    step = first.recording.facts.step
    found["limit"], found["op"], found["why not"] = first.diagnosis.limit, first.diagnosis.op, step and step.why_not
    found["parts"] = {part.kind: part.bytes for part in first.diagnosis.breakdown}
    found["estimates"] = {n: told(n) for n in BATCHES}
    found["offers"] = [offer(p) for p in first.proposals if hasattr(p, "diff") and p.takes_effect == "rerun"]
    found["declined"] = {p.key: p.reason for p in first.proposals if hasattr(p, "reason")}
"""

AGAIN = """(lambda r: {"status": r.status, "peak": r.recording.main.peak, "least": r.diagnosis and
r.diagnosis.in_use + (r.diagnosis.requested or 0)})(again)"""


@dataclass
class Total:
    """What all rows tell."""

    middles: list[float] = field(default_factory=list)
    aboves: int = 0
    offers: int = 0
    estimated: int = 0
    fits: list[bool] = field(default_factory=list)
    tries: list[int] = field(default_factory=list)
    first_shares: list[float] = field(default_factory=list)
    ups: list[bool] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def add(self, low: int, high: int, peak: int) -> None:
        """Add an expected range and the measured peak."""
        self.middles.append(abs((low + high) / 2 / peak - 1))
        self.aboves += high < peak


def batches_of(batch: int) -> list[int]:
    """List the batch sizes at which peaks are measured: those that may be proposed, from a sixteenth."""
    return [one for one in (*batch_sizes(batch, measured=True), batch) if batch // 16 <= one]


def measure(case: Unseen, folder: Path) -> dict[str, Any]:
    """Measure one model, let it run out of memory, take what is proposed, and give what was found."""
    script = f"{HEAD}\n{case.code}\nmake = lambda n: ({case.data})\n"
    batches = batches_of(case.batch)
    given = {"batch": case.batch, "batches": batches, "cell": case.cell}
    measured = found_by(script + MEASURE, given, bfc(4000))
    peak = measured["peaks"][str(case.batch)]
    failed: dict[str, Any] = {}
    for share in SHARES:
        limit = max(int((measured["base"] + share * (peak - measured["base"])) / MIB), 16)
        failed = surviving(lambda mib=limit: _fail(script, case, mib, batches, folder))
        if failed["status"] == "oom":
            break
    return {"batch": case.batch, **measured, **failed}


def _fail(script: str, case: Unseen, limit: int, batches: list[int], folder: Path) -> dict[str, Any]:
    env = {**bfc(limit), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    with Kernel(env, cwd=str(folder)) as kernel:
        ran = kernel.run(f"%load_ext tf_mem_magic\nimport tf_mem_magic as t\n{script}\nx, y = make({case.batch})")
        assert ran.status == "ok", ran.errors
        kernel.run(f"%%tfmem\nmodel = build()\n{case.cell.format(batch=case.batch)}", timeout=600)
        ran = kernel.run(f"BATCH, BATCHES = {case.batch}, {batches}\n{ESTIMATES}")
        assert ran.status == "ok", ran.errors
        kernel.run("first.save('first.tfmem')")
        found: dict[str, Any] = json.loads(kernel.value("json.dumps(found)"))
        found["reruns"] = {}
        offers = {offer["key"]: offer for offer in found.get("offers", ())}
        for key in KEYS:
            if key in offers:
                found["reruns"][key] = list(_tries(kernel, key, offers[key]))
                if key == "smaller-batch":
                    found["steps up"] = list(_steps_up(kernel))
    return found


def _tries(kernel: Kernel, key: str, offer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Run the cell again with a change; a smaller batch again and again, until it fits."""
    kernel.run("again = first")
    for _ in range(MOST_TRIES if key == "smaller-batch" else 1):
        ran = kernel.run(f"again = again.rerun({key!r})", timeout=600)
        if ran.status != "ok":
            yield {**offer, "error": ran.errors[-1][-200:]}
            return
        result = kernel.value(AGAIN)
        yield {**offer, **result}
        if result["status"] != "oom":
            return
        kernel.run(f"offers = [offer(p) for p in again.proposals if p.key == {key!r} and hasattr(p, 'diff')]")
        following = kernel.value("offers")
        if not following:
            return
        offer = following[0]


def _steps_up(kernel: Kernel) -> Iterator[dict[str, Any]]:
    """Take the steps back up that are offered after a batch that fitted."""
    while kernel.value("again.status") == "ok":
        told = "[(dict(p.expects)['batch'], (p.estimate.low, p.estimate.high)) for p in again.outcome.further if p.key == {!r}]"
        offered = kernel.value(told.format("larger-batch"))
        if not offered:
            return
        batch, limits = offered[0]
        offer = {"batch": batch, "range": limits}
        ran = kernel.run("again = again.rerun('larger-batch')", timeout=600)
        if ran.status != "ok":
            yield {**offer, "status": "error", "error": ran.errors[-1][-200:]}
            return
        yield {**offer, **kernel.value(AGAIN)}


def rows(name: str, found: Mapping[str, Any], total: Total) -> Iterator[tuple[str, ...]]:
    """Yield a model's rows of the table, and add them to the total."""
    if found["status"] != "oom":
        yield name, found["status"]
        return
    peaks = {int(n): peak for n, peak in found["peaks"].items()}
    for n, told in found["estimates"].items():
        if told is not None and int(n) in (found["batch"] // 4, found["batch"] // 2, found["batch"]):
            total.add(*told, peaks[int(n)])
            yield (name, f"batch {n}", *_compared(told, peaks[int(n)]), "", "")
    measured = dict(found["reruns"])
    for offer in found["offers"]:
        total.offers += 1
        total.estimated += offer["range"] is not None
    for key, tries in measured.items():
        first = tries[0]
        if first.get("error") or first["range"] is None:
            yield name, key, "", str(first.get("error") or first["status"])
            continue
        low, high = first["range"]
        did_fit = first["status"] == "ok"
        peak = first["peak"] if did_fit else first["least"]
        if did_fit:
            total.add(low, high, peak)
        says = high <= found["limit"]
        total.fits.append(did_fit or not says)
        right = "fits" if did_fit else "does not fit"
        yield (
            name,
            key,
            *_compared((low, high), peak),
            f"{'fits' if says else 'may fit'}: {right}",
            str(first["batch"] or ""),
        )
    tries = measured.get("smaller-batch")
    if tries and tries[-1].get("status") == "ok":
        total.tries.append(len(tries) - 1)
        most = max((n for n, peak in peaks.items() if peak <= found["limit"]), default=0)
        total.first_shares.append(tries[-1]["batch"] / max(most, 1))
        yield name, "a batch that fits", "", "", "", f"{len(tries) - 1} failed, {tries[-1]['batch']} of {most}"
        up = found.get("steps up", [])
        for one in up:
            if one["status"] == "error":
                yield name, "a step up", "", one["error"]
                continue
            total.ups.append(one["status"] == "ok")
            peak = one["peak"] if total.ups[-1] else one["least"]
            yield (
                name,
                "a step up",
                *_compared(one["range"], peak),
                f"fits: {total.ups[-1]}",
                f"{one['batch']} of {most}",
            )
        fitted = [one["batch"] for one in (tries[-1], *up) if one["status"] == "ok"]
        total.shares.append(max(fitted) / max(most, 1))


def _compared(told: tuple[int, int], peak: int) -> tuple[str, str]:
    low, high = told
    return f"{low / MIB:.0f} to {high / MIB:.0f}", f"{peak / MIB:.0f}, {(low + high) / 2 / peak - 1:+.1%}"


def summary(total: Total) -> str:
    """Say what all rows tell."""
    off = total.middles
    return (
        f"\n{total.estimated} of {total.offers} proposals with an estimate; {len(off)} peaks: median error of the middle"
        f" {median(off):.1%}, {sum(one <= 0.1 for one in off) / len(off):.0%} within 10 %, {total.aboves} above the range"
        f" ({total.aboves / len(off):.0%}); {sum(total.fits)} of {len(total.fits)} fitted where it said so; until a batch"
        f" fitted {sum(total.tries) / max(len(total.tries), 1):.2f} failed in the mean, which was"
        f" {sum(total.first_shares) / max(len(total.shares), 1):.2f} of the largest; {sum(total.ups)} of"
        f" {len(total.ups)} steps up fitted, after which it was {sum(total.shares) / max(len(total.shares), 1):.2f}"
    )


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--keep", type=Path, help="a folder for what was found")
    asked = parser.parse_args()
    columns = ("model", "change", "expected, MiB", "measured", "fits", "batch")
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns), flush=True)
    total = Total()
    models = {**UNSEEN, **FRESH}
    for name in asked.names or models:
        with TemporaryDirectory() as temporary:
            folder = asked.keep / name.replace(" ", "-") if asked.keep else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                found = measure(models[name], folder.resolve())
                (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
                lines = list(rows(name, found, total))
            except Exception as error:
                lines = [(name, f"{type(error).__name__}: {str(error)[-300:]!r}")]
        for cells in lines:
            print("| " + " | ".join((*cells, *("",) * (len(columns) - len(cells)))) + " |", flush=True)
    if total.middles:
        print(summary(total))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

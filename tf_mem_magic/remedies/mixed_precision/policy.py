"""Which 16-bit policy a device computes well in, and what that costs there."""

from __future__ import annotations

from tf_mem_magic.core.facts import DeviceFacts, Facts

SLOWER_ON_CPU = 6
"""An epoch's processor time took 1.1 to 6.3 times as long, over the models of ``docs/remedies.md``."""


def choose_policy(facts: Facts, failed_on: str) -> tuple[str, tuple[str, ...]]:
    """Choose by the device: bfloat16 needs no loss scaling, but only newer cards compute in it.

    Parameters
    ----------
    facts : Facts
        What is known of the devices.
    failed_on : str
        The device whose memory ran out; empty where that is not known.

    Returns
    -------
    tuple of (str, tuple of str)
        The policy's name, and caveats.
    """
    device = _device(facts, failed_on)
    if device.kind == "TPU":
        return "mixed_bfloat16", ()
    if device.kind == "CPU":
        return "mixed_bfloat16", ("Slower on a CPU: most CPUs compute faster in 32 bits.",)
    if device.compute_capability is None:
        return "mixed_float16", (f"It is not known how fast {device.name} computes in 16 bits.",)
    if device.compute_capability >= (8, 0):
        return "mixed_bfloat16", ()
    if device.compute_capability >= (7, 0):
        return "mixed_float16", ()
    return "mixed_float16", ("Slower on this card: it has no tensor cores. Memory may still fall.",)


def cost_of(facts: Facts, failed_on: str) -> str:
    """Say in a few words where 16 bits are known to compute slower."""
    device = _device(facts, failed_on)
    if device.kind == "CPU":
        return f"up to {SLOWER_ON_CPU} times slower on CPU"
    old = device.compute_capability is not None and device.compute_capability < (7, 0)
    return "slower on this card" if old and device.kind == "GPU" else ""


def _device(facts: Facts, name: str) -> DeviceFacts:
    known = facts.device(name)
    if known is not None:
        return known
    if name:
        kind = name.partition(":")[0]
        return DeviceFacts(name, "CPU" if kind == "CPU" else "TPU" if kind == "TPU" else "GPU")
    cards = [d for d in facts.devices if d.kind != "CPU"]
    return cards[0] if cards else DeviceFacts("CPU:0", "CPU")

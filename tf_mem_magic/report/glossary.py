"""The words that need a meaning, and their meanings, for hovering."""

from __future__ import annotations

MEANINGS: dict[str, str] = {
    "in use": "bytes that TensorFlow's allocator has handed out and not got back",
    "peak": "the highest value during the run",
    "limit": "the most that the allocator, or the machine, may hold",
    "pool": "bytes that the allocator holds, used or free",
    "device used": "what all processes together hold of the card, as its driver tells",
    "process": "what this process holds of the card, as the card's driver tells",
    "host memory": "the machine's main memory that this process holds (resident set)",
    "allocator": "the part of TensorFlow that hands out pieces of a device's memory",
    "fragmentation": "the share of the free memory that is not in the largest free piece",
    "effective batch": "batch × accumulation steps × replicas: how many samples one weight update sees",
    "gradient accumulation": "several smaller batches, added up before one weight update",
    "rematerialization": "computing activations again in the backward pass instead of keeping them",
    "mixed precision": "computing in 16 bits while the weights stay in 32 bits",
    "memory growth": "TensorFlow takes the card's memory as it needs it, not all at the start",
    "activations": "results of the layers, kept for the backward pass",
    "optimizer": "the optimizer's own variables, such as Adam's two moments for each weight",
}
"""Term to meaning; the terms are those of the reports, in lower case."""

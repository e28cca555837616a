"""Asynchronous allocator: CUDA's own memory pool in place of TensorFlow's, because it fragments less."""

from __future__ import annotations

from tf_mem_magic.core.diagnosis import Cause, Diagnosis
from tf_mem_magic.core.facts import DeviceFacts
from tf_mem_magic.core.proposals import Example, Proposal, RefusedError
from tf_mem_magic.remedies._engine.cards import RESTARTS, find_card, list_cards, words_in_cells
from tf_mem_magic.remedies._engine.examples import FIT, example
from tf_mem_magic.remedies._engine.question import Ask, remedy

KEY = "async-allocator"
TITLE = "Asynchronous allocator"

_VARIABLE = "TF_GPU_ALLOCATOR"
_VALUE = "cuda_malloc_async"

_WHY = (
    "TensorFlow's allocator cuts its pool into pieces, and a large request needs one free piece of its size. CUDA's "
    "own pool can put free pieces together, so free memory is usable in larger blocks."
)
_CAVEATS = (
    RESTARTS,
    "It does not make the model smaller: it helps where memory was free, but in pieces.",
    "TensorFlow may keep no statistics with this allocator: the memory of the card is then sampled, and exact peaks, "
    "dumps and causes are missing.",
    "It needs CUDA 11.2 or newer and a driver that offers memory pools; TensorFlow's log says where it does not.",
)
_NOT_KNOWN = "Whether free memory in pieces was the cause is not known here."
_LITTLE = "What was free, in pieces too small, lasts in one piece for this request and not far beyond."
_OTHER_CAUSES: dict[Cause, str] = {
    "other-process": "another process holds the memory that was missing, and no allocator can use that",
    "leftovers": "what is left over fills the card, and another allocator does not let go of it",
    "too-big": "the card is too small for the request, however its free memory is arranged",
}


@remedy(KEY, TITLE)
def propose(ask: Ask) -> Proposal:
    """Offer the allocator where free memory was in pieces, or may have been."""
    find_card(ask)
    _check(ask)
    diagnosis = ask.diagnosis
    fragmented = diagnosis is not None and diagnosis.cause == "fragmentation"
    unsure = _LITTLE if diagnosis is not None and _nearly_full(diagnosis) else _NOT_KNOWN
    return Proposal(
        key=KEY,
        title="Restart with CUDA's asynchronous allocator",
        source=ask.source,
        original=ask.source,
        preserves="same results",
        takes_effect="restart",
        caveats=(*_CAVEATS, *(() if fragmented else (unsure,))),
        why=_WHY,
        environment=((_VARIABLE, _VALUE),),
        answers_cause=fragmented,
        excludes=("device-limit",),
    )


def _check(ask: Ask) -> None:
    set_to = dict(ask.facts.environment).get(_VARIABLE, "")
    if set_to:
        raise RefusedError("it is in use already" if set_to == _VALUE else f"{_VARIABLE} is set to {set_to} already")
    if words_in_cells(ask, _VARIABLE):
        raise RefusedError(f"a cell of the notebook sets {_VARIABLE} itself")
    if any(card.logical for card in list_cards(ask.facts)):
        raise RefusedError(
            "a logical device with its own memory limit is set up, and it is not sure that the two combine"
        )
    if ask.diagnosis is not None and not _nearly_full(ask.diagnosis) and ask.diagnosis.cause in _OTHER_CAUSES:
        raise RefusedError(_OTHER_CAUSES[ask.diagnosis.cause])


def _nearly_full(diagnosis: Diagnosis) -> bool:
    """Say whether the request failed on a pool that had just enough left for it, though not in one piece."""
    requested, in_use, limit = diagnosis.requested, diagnosis.in_use, diagnosis.limit
    if diagnosis.cause != "too-big" or requested is None or in_use is None or limit is None:
        return False
    return in_use + requested <= limit


_CARD = DeviceFacts("GPU:0", compute_capability=(8, 0))


def _example(
    name: str,
    expect: str,
    card: DeviceFacts = _CARD,
    cause: Cause = "fragmentation",
    *,
    device: str = "GPU:0",
    environment: tuple[tuple[str, str], ...] = (),
    earlier: tuple[str, ...] = (),
    in_use: int | None = None,
) -> Example:
    diagnosis = Diagnosis(device, cause=cause, requested=4, in_use=in_use, limit=100)
    return example(
        name,
        FIT,
        expect,
        declined=expect != FIT,
        diagnosis=diagnosis,
        keras=None,
        devices=(DeviceFacts("CPU:0", "CPU"), card),
        environment=environment,
        earlier_cells=earlier,
    )


EXAMPLES: tuple[Example, ...] = (
    _example("free memory was in pieces: restart, same cell", FIT),
    _example("the cause is not known", FIT, cause="unknown"),
    _example("the card is too small", "too small", cause="too-big"),
    _example("the card is too small beside what is in use", "too small", cause="too-big", in_use=97),
    _example("the little that was left was in pieces: offered, with that said", FIT, cause="too-big", in_use=95),
    _example("another process holds the card", "another process", cause="other-process"),
    _example("leftovers fill the card", "left over", cause="leftovers"),
    _example("the host ran out", "own memory", cause="host", device="host"),
    _example("the CPU ran out", "CPU:0 that ran out", device="CPU:0"),
    _example("no GPU", "no GPU", DeviceFacts("CPU:0", "CPU")),
    _example("the card of a plug-in", "not known to be an NVIDIA card", DeviceFacts("GPU:0")),
    _example("in use already", "in use already", environment=((_VARIABLE, _VALUE),)),
    _example("another one is chosen", "set to platform", environment=((_VARIABLE, "platform"),)),
    _example("the notebook chooses itself", "itself", earlier=(f'os.environ["{_VARIABLE}"] = "BFC"',)),
    _example("a logical device", "memory limit", DeviceFacts("GPU:0", compute_capability=(8, 0), logical=True)),
)

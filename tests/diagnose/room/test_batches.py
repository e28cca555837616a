"""The batch size to try next, where a pool lies in pieces."""

from tests.diagnose.room.test_pieces import MIB, failed
from tests.diagnose.test_expected import BATCH
from tests.diagnose.test_expected import failed as in_one_piece
from tf_mem_magic.core.effects import Effect
from tf_mem_magic.diagnose.room.batches import batch_to_try
from tf_mem_magic.diagnose.room.pieces import room_for
from tf_mem_magic.diagnose.room.search import largest_batch


def test_in_one_piece_it_is_the_largest_that_is_expected_to_fit():
    recording, diagnosis = in_one_piece()
    assert batch_to_try(recording, diagnosis, BATCH, BATCH) == largest_batch(recording, diagnosis, BATCH, BATCH) > 1


def test_where_no_batch_finds_room_in_the_pieces_it_is_the_largest_that_does_in_a_new_process():
    """17 MiB at once find none of them at any batch, and a new pool has room for one such buffer even at 96."""
    recording, diagnosis = failed()
    assert batch_to_try(recording, diagnosis, 128, 128) == 96


def test_a_batch_that_finds_room_in_the_pieces_comes_before_a_larger_one_that_takes_a_restart():
    """102 of 140 MiB are taken, in pieces of at most 20: room for 512 samples, in a new pool for 768."""
    regions = tuple(size * MIB for size in (2, 4, 8, 16, 20, 20, 20, 12))
    recording, diagnosis = failed(limit=140 * MIB, regions=regions, batch=1024)
    larger, found = (choose(recording, diagnosis, 1024, 1024) for choose in (largest_batch, batch_to_try))
    rooms = [room_for(recording, diagnosis, Effect(batch=(1024, one))) for one in (larger, found)]
    assert (larger, found, rooms) == (768, 512, ["fresh", "here"])


def test_a_batch_of_less_than_an_eighth_that_may_fit_here_comes_after_a_larger_one_in_a_fresh_process():
    recording, diagnosis = failed(limit=50 * MIB)
    assert batch_to_try(recording, diagnosis, 128, 128) >= 16


def test_where_nothing_can_be_estimated_no_batch_is_chosen():
    recording, diagnosis = in_one_piece(compiled=True)
    assert batch_to_try(recording, diagnosis, BATCH, BATCH) is None

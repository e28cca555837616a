"""Effects of changes add up."""

from tf_mem_magic.core.effects import Effect


def test_two_batches_one_after_the_other_are_the_way_from_the_first_to_the_last():
    assert Effect(batch=(256, 128)).then(Effect(batch=(128, 32))).batch == (256, 32)


def test_what_the_later_change_leaves_alone_stays():
    both = Effect(batch=(256, 128), released=5).then(Effect(policy="mixed_float16", released=7))
    assert both == Effect(batch=(256, 128), policy="mixed_float16", released=12)


def test_blocks_are_united_and_unknown_ones_stay_unknown():
    assert Effect(recompute=(("a",), ("b",))).then(Effect(recompute=(("b",), ("c",)))).recompute == (
        ("a",),
        ("b",),
        ("c",),
    )
    assert Effect(recompute=(("a",),)).then(Effect(recompute=())).recompute == ()

"""The peak of a step from its operations."""

from dataclasses import replace
from math import prod

import pytest

from tests.memory.steps import KIB, Maker, dense_stack
from tests.memory.test_walk import loop_step
from tf_mem_magic.core.step import Processor, Tensor
from tf_mem_magic.memory.forecast import peak_of, zeros_of
from tf_mem_magic.memory.temporaries import temporary_bytes

PROCESSOR = Processor(320 << 20, 2)


@pytest.mark.parametrize("layers", [2, 4, 8])
def test_the_peak_of_a_dense_stack_follows_from_its_form(layers):
    """In the backward pass: the layers' activations, a gradient, and the weight's gradient with its update."""
    activation, weight = 64 * 256 * 4, 256 * 256 * 4
    low = peak_of(dense_stack(layers, batch=64)).low
    assert layers * activation + weight <= low <= (layers + 2) * activation + 2 * weight


def test_on_a_processor_the_most_of_all_ways_counts_and_elsewhere_the_real_one_lies_between_two():
    step = dense_stack(4, batch=64)
    here, elsewhere = peak_of(step, PROCESSOR), peak_of(step)
    assert here.low == here.high
    assert elsewhere.low <= elsewhere.high


def test_a_loop_takes_its_list_and_one_round_of_its_body():
    peak = peak_of(loop_step(5))
    assert peak.low >= (5 * 4 + 2) * KIB


@pytest.mark.parametrize(
    ("kind", "kernel", "image", "samples", "pixels", "taps"),
    [
        # As asked for by TensorFlow 2.21 in failures on a processor of two threads, whose cache holds 320 MiB.
        ("Conv2DBackpropInput", (2, 2, 32, 64), (64, 8, 8, 64), 384, 64, 128),
        ("Conv2DBackpropInput", (3, 3, 32, 32), (64, 64, 64, 32), 1, 4096, 288),
        ("Conv2DBackpropFilter", (3, 3, 48, 16), (64, 32, 32, 16), 17, 1024, 432),
        ("Conv2DBackpropFilter", (3, 3, 64, 64), (96, 16, 16, 64), 40, 256, 576),
    ],
)
def test_the_patches_of_a_convolutions_gradient_are_those_that_were_asked_for(
    kind, kernel, image, samples, pixels, taps
):
    made = Maker()
    gradient = made.op("Relu", "gradient", shape=image)
    if kind == "Conv2DBackpropFilter":
        inputs = (made.op("Relu", "x", shape=(64, 32, 32, 48)), made.op("Const", "s", shape=(4,), dtype="int32"))
        outputs = (Tensor(kernel, "float32"),)
    else:
        inputs = (made.op("Const", "s", shape=(4,), dtype="int32"), made.op("Relu", "w", shape=kernel))
        outputs = (Tensor((64, 16, 16, 32), "float32"),)
    at, _ = made.op(kind, "conv", *inputs, gradient, outputs=outputs)
    assert temporary_bytes(made.step((at, 0)), at, PROCESSOR) == samples * pixels * taps * 4


def test_a_filters_gradient_is_made_for_each_sample_of_a_depthwise_convolution():
    made = Maker()
    x, g = (made.op("Relu", name, shape=(64, 16, 16, 96)) for name in "xg")
    sizes = made.op("Const", "s", shape=(4,), dtype="int32")
    kind = "DepthwiseConv2dNativeBackpropFilter"
    at, _ = made.op(kind, "depthwise", x, sizes, g, outputs=(Tensor((3, 3, 96, 1), "float32"),))
    assert temporary_bytes(made.step((at, 0)), at, PROCESSOR) == 64 * 3 * 3 * 96 * 4


@pytest.mark.parametrize(("dtype", "asked_for"), [("float32", (4194304, 2097152)), ("bfloat16", (4194304, 1048576))])
def test_maxima_and_their_places_are_found_again_in_their_gradient(dtype, asked_for):
    """As TensorFlow 2.21 asked for, by its allocator's events: int64 places, and the maxima."""
    at, step = pooled_back(dtype)
    assert temporary_bytes(step, at, PROCESSOR) == sum(asked_for)


@pytest.mark.parametrize(("dtype", "has_one"), [("float32", True), ("bfloat16", True), ("float16", False)])
def test_where_onednn_has_a_kernel_gradients_of_maxima_and_convolutions_take_nothing_more(dtype, has_one):
    at, step = pooled_back(dtype)
    assert (temporary_bytes(step, at, replace(PROCESSOR, onednn=True)) == 0) == has_one
    for kind, kernel in (
        ("Conv2DBackpropFilter", (3, 3, 32, 32)),
        ("DepthwiseConv2dNativeBackpropFilter", (3, 3, 32, 1)),
    ):
        made = Maker()
        x, g = (made.op("Relu", name, shape=(64, 32, 32, 32), dtype=dtype) for name in "xg")
        sizes = made.op("Const", "s", shape=(4,), dtype="int32")
        at, _ = made.op(kind, "conv", x, sizes, g, outputs=(Tensor(kernel, dtype),))
        step = made.step((at, 0))
        assert temporary_bytes(step, at, PROCESSOR) > 0
        assert (temporary_bytes(step, at, replace(PROCESSOR, onednn=True)) == 0) == has_one


def pooled_back(dtype):
    """Give where the gradient of a maximum of 64 pictures stands in a step, and the step."""
    made = Maker()
    x = made.op("Relu", "x", shape=(64, 32, 32, 32), dtype=dtype)
    y, g = (made.op("Relu", name, shape=(64, 16, 16, 32), dtype=dtype) for name in "yg")
    at, _ = made.op("MaxPoolGrad", "pool", x, y, g, outputs=(Tensor((64, 32, 32, 32), dtype),))
    return at, made.step((at, 0))


@pytest.mark.parametrize(
    ("given", "kept", "copied"),
    [
        ((8, 16, 16, 4), (1, 16, 1, 4), True),
        ((8, 16, 4, 4), (8, 1, 4, 1), True),
        ((8, 16, 16, 4), (1, 1, 1, 4), False),
        ((8, 16, 16, 4), (8, 1, 1, 4), False),
        ((8, 16, 1, 4), (1, 16, 1, 1), False),
        ((8, 16, 16, 4), (16, 4), False),
    ],
)
def test_a_sum_over_axes_between_others_takes_a_copy(given, kept, copied):
    made = Maker()
    x = made.op("Relu", "x", shape=given)
    at, _ = made.op("Sum", "sum", x, made.op("Const", "axes", shape=(2,), dtype="int32"), shape=kept)
    assert temporary_bytes(made.step((at, 0)), at, PROCESSOR) == copied * prod(given) * 4


@pytest.mark.parametrize(
    ("dtype", "onednn", "copied"),
    [
        ("float16", False, True),
        ("bfloat16", False, True),
        ("bfloat16", True, False),
        ("float32", False, False),
        ("float32", True, False),
    ],
)
@pytest.mark.parametrize("kind", ["MatMul", "BatchMatMulV2"])
def test_a_product_in_16_bits_takes_its_matrices_in_32_unless_onednn_computes_it(kind, dtype, onednn, copied):
    made = Maker()
    a, b = made.op("Relu", "a", shape=(64, 32), dtype=dtype), made.op("Relu", "b", shape=(32, 16), dtype=dtype)
    at, _ = made.op(kind, "product", a, b, shape=(64, 16), dtype=dtype)
    processor = replace(PROCESSOR, onednn=onednn)
    assert temporary_bytes(made.step((at, 0)), at, processor) == copied * (64 * 32 + 32 * 16 + 64 * 16) * 4


@pytest.mark.parametrize(
    ("kind", "channels", "batch", "samples"),
    [
        ("Filter", (16, 16), 64, 12),
        # As many however few there are.
        ("Filter", (1, 64), 2, 57),
        ("Input", (16, 16), 64, 12),
        ("Input", (16, 16), 1, 1),
        # Beside few channels of few samples they would be more than 25 times as large: there are none then.
        ("Filter", (1, 1), 4, 0),
        ("Filter", (16, 16), 1, 0),
        ("Input", (1, 1), 4, 0),
    ],
)
def test_the_patches_in_three_dimensions_fill_the_real_cache_unless_they_are_too_large(kind, channels, batch, samples):
    made = Maker()
    image, kernel = (batch, 16, 32, 32), (3, 3, 3, *channels)
    x, g = made.op("Relu", "x", shape=(*image, channels[0])), made.op("Relu", "g", shape=(*image, channels[1]))
    w, sizes = made.op("Const", "w", shape=kernel), made.op("Const", "s", shape=(5,), dtype="int32")
    given, out = ((x, sizes, g), kernel) if kind == "Filter" else ((sizes, w, g), (*image, channels[0]))
    at, _ = made.op(f"Conv3DBackprop{kind}V2", "conv", *given, outputs=(Tensor(out, "float32"),))
    assert temporary_bytes(made.step((at, 0)), at, PROCESSOR) == samples * 16 * 32 * 32 * 27 * channels[0] * 4


def test_a_filters_gradient_in_three_dimensions_lays_out_as_many_scans_of_one():
    """Scans of 64 × 64 × 32 one by one, 16 filters: [15,131072,27] were asked for, where one had been told to fit."""
    made = Maker()
    x, g = made.op("Relu", "x", shape=(1, 64, 64, 32, 1)), made.op("Relu", "g", shape=(1, 64, 64, 32, 16))
    sizes = made.op("Const", "s", shape=(5,), dtype="int32")
    at, _ = made.op("Conv3DBackpropFilterV2", "conv", x, sizes, g, outputs=(Tensor((3, 3, 3, 1, 16), "float32"),))
    assert temporary_bytes(made.step((at, 0)), at, PROCESSOR) == 15 * 131072 * 27 * 4


def test_other_operations_have_no_temporaries_that_are_known():
    step = dense_stack(2)
    assert {temporary_bytes(step, at, PROCESSOR) for at in range(len(step.nodes))} == {0}


@pytest.mark.parametrize(
    ("sums", "zeros"), [([400, 400, 400], 400), ([400, 100, 25], 525), ([400, 400, 100, 100, 25], 525), ([], 0)]
)
def test_sums_of_one_shape_are_cleared_with_the_same_zeros(sums, zeros):
    """As TensorFlow's allocation events show: one constant of each shape, from the first step to the end."""
    assert zeros_of(sums) == zeros

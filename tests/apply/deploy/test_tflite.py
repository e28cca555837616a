"""What a converter that failed has said, in a sentence."""

from __future__ import annotations

import pytest

from tf_mem_magic.apply.deploy.tflite import _why

NO_KERNEL = """loc("x"): error: 'tf.TensorListReserve' op is neither a custom op nor a flex op
error: failed while converting: 'main': Some ops are not supported by the native TFLite runtime
TF Select ops: TensorListReserve, TensorListStack
Details:
\ttf.TensorListReserve(tensor<2xi32>, tensor<i32>) -> (tensor<!tf_type.variant>) : {device = ""}
"""


@pytest.mark.parametrize(
    ("said", "code", "sentence"),
    [
        (NO_KERNEL, 1, "it has no kernel for TensorListReserve, TensorListStack."),
        ("error: failed to legalize operation 'tf.Cumprod' that was", 1, "it has no kernel for Cumprod."),
        ("", -6, "the converter's process was ended by signal 6."),
        ("Traceback\nValueError: a model without a name\n", 1, "a model without a name"),
        ("", 3, "it ended with 3"),
    ],
)
def test_the_operations_without_a_kernel_are_named_else_the_last_words_are(said, code, sentence):
    assert _why(said, code) == sentence

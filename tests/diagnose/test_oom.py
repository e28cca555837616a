"""Which errors are out of memory, and what their texts tell: real captured chains first, constructed ones named so."""

import pytest

from tests import captured
from tf_mem_magic.core.facts import DeviceFacts, Facts
from tf_mem_magic.core.recording import Dump, ErrorText
from tf_mem_magic.diagnose.oom import find_oom

DISGUISED_FOR_REAL = "gpu_variable"
NOT_MEMORY = {"absurd_shape", "no_space", "user_says_so", "py_function_says_so"}
CPU = "CPU:0"
F32 = "float32"

# case: device, requested, shape, dtype, op, layer, role, jit
TOLD = {
    "eager": (CPU, 64_000_000, (4000, 4000), F32, "AddV2", None, None, False),
    "build": (CPU, 240_000_000, (1000, 60000), F32, "StatelessRandomUniformV2", None, None, False),
    "function": (CPU, 81_000_000, (4500, 4500), F32, "mul", None, None, False),
    "fit": (CPU, 2**27, (256, 64, 64, 32), F32, "sequential_1/conv2d_1_2/Relu", "conv2d_1", "activations", False),
    "strategy": (CPU, 2**27, (256, 64, 64, 32), F32, "sequential_1/conv2d_1_2/Relu", "conv2d_1", "activations", False),
    "predict": (CPU, 2**28, (512, 64, 64, 32), F32, "sequential_1/conv2d_1/Relu", "conv2d", "activations", False),
    "evaluate": (CPU, 2**28, (512, 64, 64, 32), F32, "sequential_1/conv2d_1/Relu", "conv2d", "activations", False),
    "run_eagerly": (CPU, 2**28, (512, 64, 64, 32), F32, "Conv2D", "Conv2D", None, False),
    "train_step": (CPU, 144_000_000, (6000, 6000), F32, "Sin", None, None, False),
    "data_map": (CPU, 324_000_000, (9000, 9000), F32, "ones", None, "input", False),
    "data_map_in_fit": (
        *(CPU, 324_000_000, (9000, 9000), F32, "random_normal/RandomStandardNormal"),
        *(None, "input", False),
    ),
    "data_batch": (CPU, None, None, None, "IteratorGetNext", None, "input", False),
    "py_function": (CPU, 324_000_000, (9000, 9000), F32, "Fill", None, None, False),
    "py_function_graph": (CPU, 324_000_000, (9000, 9000), F32, "Fill", None, None, False),
    "numpy_function": ("host", 8 * 10**12, (10**6, 10**6), "float64", None, None, None, False),
    "generator": ("host", 4 * 10**12, (10**6, 10**6), F32, "PyFunc", None, "input", False),
    "numpy": ("host", 8 * 10**12, (1000, 1000, 10**6), "float64", None, None, None, False),
    "numpy_in_layer": ("host", 8 * 10**12, (1000, 1000, 10**6), "float64", None, None, None, False),
    "python": ("host", None, None, None, None, None, None, False),
    "wrapped": (CPU, 324_000_000, (9000, 9000), F32, "Fill", None, None, False),
    "async_task": (CPU, 324_000_000, (9000, 9000), F32, "Fill", None, None, False),
    "jit": (None, 1_363_652_116, None, None, None, None, None, True),
    "gpu_fit": (
        *("GPU:0", None, None, None, "gradient_tape/sequential_1/dense_16_1/BiasAdd/BiasAddGrad"),
        *(None, None, False),
    ),
    "fit_gradient": (
        *(CPU, 96 * 64 * 64 * 32 * 4, (96, 64, 64, 32), F32),
        *("gradient_tape/sequential_1/global_average_pooling2d_1/BroadcastTo", "global_average_pooling2d"),
        *("gradients", False),
    ),
}
OLD = TOLD | {"jit": (None, 1_073_889_464, None, None, None, None, None, True)}


def told(found):
    text = found.text
    return found.device, text.requested, text.shape, text.dtype, text.op, text.layer, text.role, text.jit


def test_every_captured_case_is_judged_here():
    assert captured.names("2.21.0") == sorted(TOLD.keys() | NOT_MEMORY | {DISGUISED_FOR_REAL})


@pytest.mark.parametrize("case", sorted(TOLD))
def test_a_captured_out_of_memory_error_of_2_21_is_read(case):
    assert TOLD[case] == told(find_oom(captured.load("2.21.0", case), Facts(), ()))


@pytest.mark.parametrize("case", sorted(set(captured.names("2.16.1")) - NOT_MEMORY))
def test_a_captured_out_of_memory_error_of_2_16_is_read(case):
    assert OLD[case] == told(find_oom(captured.load("2.16.1", case), Facts(), ()))


@pytest.mark.parametrize("case", sorted(NOT_MEMORY))
def test_a_captured_error_that_is_not_about_memory_is_none_even_when_an_earlier_dump_lies_around(case):
    dump = Dump("bfc_cpu_allocator_for_gpu", "structured")
    assert find_oom(captured.load("2.21.0", case), Facts(), (dump,)) is None


def test_the_captured_disguised_error_of_a_full_gpu_is_out_of_memory_where_the_allocator_left_a_dump():
    dump = Dump("PluggableDevice_0_bfc", "text")
    found = find_oom(captured.load("2.21.0", DISGUISED_FOR_REAL), Facts(), (dump,))
    assert ("GPU:0", True, "AssignVariableOp") == (found.device, found.disguised, found.text.op)


def test_the_captured_disguised_error_of_a_full_gpu_proves_nothing_alone():
    assert find_oom(captured.load("2.21.0", DISGUISED_FOR_REAL), Facts(), ()) is None


# From here on the texts are constructed: strings of TensorFlow's own binaries, which a CPU cannot raise.

TF = "tensorflow.python.framework.errors_impl"
GPU_DUMP = Dump("GPU_0_bfc", "structured")
JOB = "/job:localhost/replica:0/task:0/device"


def tf_error(kind, message):
    return (ErrorText(kind, message, (), (f"{TF}.{kind}", f"{TF}.OpError", "builtins.Exception")),)


GPU_TEXTS = {
    "allocator": (
        f"OOM when allocating tensor with shape[8,112,112,64] and type half on {JOB}:GPU:1 by allocator GPU_1_bfc",
        ("GPU:1", 8 * 112 * 112 * 64 * 2, "float16"),
    ),
    "temporary tensor": (
        f"OOM when allocating temporary tensor with shape [100,3] and type double on {JOB}:GPU:0 by allocator GPU_0_bfc",
        ("GPU:0", 2400, "float64"),
    ),
    "pluggable device": (
        f"OOM when allocating tensor with shape[5] and type bool on {JOB}:GPU:0 by allocator PluggableDevice_0_bfc",
        ("GPU:0", 5, "bool"),
    ),
    "pinned host memory": (
        f"OOM when allocating tensor with shape[1024] and type float on {JOB}:CPU:0 by allocator gpu_host_bfc",
        ("host", 4096, "float32"),
    ),
    "XLA, exact": (
        "Out of memory while trying to allocate 1610612736 bytes.",
        (None, 1610612736, None),
    ),
    "device ordinal": (
        "Failed to allocate request for 1.50GiB (1610612736B) on device ordinal 1",
        ("GPU:1", 1610612736, None),
    ),
}


@pytest.mark.parametrize("name", sorted(GPU_TEXTS))
def test_constructed_gpu_text_of_a_resource_exhausted_error_is_read(name):
    message, expected = GPU_TEXTS[name]
    found = find_oom(tf_error("ResourceExhaustedError", message), Facts(), ())
    assert expected == (found.device, found.text.requested, found.text.dtype)


@pytest.mark.parametrize(
    "message",
    [
        "failed call to cuDevicePrimaryCtxRetain: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        "CUDA runtime implicit initialization on GPU:0 failed. Status: out of memory",
        "cuMemAllocAsync failed to allocate 1610612736 bytes",
        "CUDA error (failed to allocate 1.50G (1610612736 bytes) from device",
        "EigenAllocator for GPU ran out of memory when allocating 1610612736",
        "Failed to call ThenRnnForward with model config: CUDNN_STATUS_ALLOC_FAILED",
        "No algorithm worked!  Error messages:\n  Profiling failure on CUDNN engine eng1: RESOURCE_EXHAUSTED: "
        "Out of memory while trying to allocate 16777216 bytes.",
    ],
)
def test_constructed_driver_text_that_names_memory_needs_no_further_evidence(message):
    assert find_oom(tf_error("InternalError", message), Facts(), ()).disguised is False


DISGUISED = [
    f"Failed copying input tensor from {JOB}:CPU:0 to {JOB}:GPU:0 in order to run AssignVariableOp: "
    "Dst tensor is not initialized.",
    "Could not create cudnn handle: CUDNN_STATUS_NOT_INITIALIZED",
    "failed to create cublas handle: cublas error",
    "Blas GEMM launch failed : a.shape=(32, 10), b.shape=(10, 5)",
    "Blas xGEMMBatched launch failed : a.shape=[1,2,3]",
    "No algorithm worked!",
    "Failed to get convolution algorithm. This is probably because cuDNN failed to initialize",
    "CUDNN failed to allocate the scratch space for the runner or to find a working no-scratch runner.",
]


@pytest.mark.parametrize("message", DISGUISED)
def test_constructed_disguised_text_without_other_evidence_is_not_out_of_memory(message):
    roomy = Facts(devices=(DeviceFacts("GPU:0", total=100, free=50),))
    assert find_oom(tf_error("InternalError", message), roomy, ()) is None


@pytest.mark.parametrize("message", DISGUISED)
def test_constructed_disguised_text_with_an_allocator_dump_is_out_of_memory(message):
    found = find_oom(tf_error("InternalError", message), Facts(), (GPU_DUMP,))
    assert ("GPU:0", True) == (found.device, found.disguised)


@pytest.mark.parametrize("message", DISGUISED)
def test_constructed_disguised_text_on_a_full_card_is_out_of_memory(message):
    full = Facts(devices=(DeviceFacts("GPU:0", total=100, free=2),))
    found = find_oom(tf_error("UnknownError", message), full, ())
    assert ("GPU:0", True) == (found.device, found.disguised)


@pytest.mark.parametrize(
    "message",
    [
        "Received message larger than max (5000000 vs. 4194304)",
        "/tmp/data.tfrecord; Too many open files",
        "events.out; No space left on device",
        "Failed to allocate: Quota exceeded for the project",
        "Allocator (GPU_0_bfc) ran out of memory trying to allocate 2.0GiB with freed_by_count=0. The caller indicates "
        "that this is not a failure, but this may mean that there could be performance gains if more memory were "
        "available.",
    ],
)
def test_constructed_exhausted_resource_other_than_memory_is_not_out_of_memory(message):
    assert find_oom(tf_error("ResourceExhaustedError", message), Facts(), ()) is None


def test_an_assertion_that_speaks_of_memory_is_not_out_of_memory():
    message = "assertion failed: [out of memory: OOM when allocating tensor with shape[3] and type float]"
    assert find_oom(tf_error("InvalidArgumentError", message), Facts(), (GPU_DUMP,)) is None


def test_the_users_interrupt_while_memory_is_awaited_is_not_out_of_memory():
    chain = (ErrorText("KeyboardInterrupt", ""), *captured.load("2.21.0", "eager"))
    assert find_oom(chain, Facts(), ()) is None


def test_the_cpus_allocator_is_the_host_where_a_gpu_does_the_work():
    facts = Facts(devices=(DeviceFacts("GPU:0"), DeviceFacts("CPU:0", "CPU")))
    assert "host" == find_oom(captured.load("2.21.0", "data_map"), facts, ()).device


def test_a_compiled_program_ran_out_on_the_only_gpu_where_its_text_names_no_device():
    facts = Facts(devices=(DeviceFacts("GPU:0"), DeviceFacts("CPU:0", "CPU")))
    assert "GPU:0" == find_oom(captured.load("2.21.0", "jit"), facts, ()).device


def test_no_errors_at_all_are_not_out_of_memory():
    assert find_oom((), Facts(), (GPU_DUMP,)) is None


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("sequential_1/batch_normalization_1/batchnorm/mul_1/Mul_1", "batch_normalization"),
        ("functional_1_1/block_1/own_1/mul_1/Mul_1", "own"),
        ("functional_1_1/block_1/own_1/mul_1", "own"),
        ("sequential_1/bidirectional_1/forward_lstm_1/while/gradients/sequential_1/x_1/zeros_like", "forward_lstm"),
    ],
)
def test_constructed_gradient_path_names_the_layer_and_not_a_scope_inside_it(node, layer):
    where = "keras/src/backend/tensorflow/trainer.py"
    message = (
        f"Graph execution error:\n\nDetected at node gradient_tape/{node} defined at (most recent call last):\n"
        f'  File "/lib/{where}", line 81, in train_step\n\nOOM when allocating tensor with shape[64,48,48,64] and type '
        f"float on {JOB}:CPU:0 by allocator cpu\n\t [[{{{{node gradient_tape/{node}}}}}]] [Op:__inference_f_1]"
    )
    assert layer == find_oom(tf_error("ResourceExhaustedError", message), Facts(), ()).text.layer


@pytest.mark.parametrize(("dumps", "expected"), [((GPU_DUMP,), True), ((), False)])
def test_constructed_constant_without_room_counts_only_where_the_allocator_left_a_dump(dumps, expected):
    message = (
        "Cannot parse tensor from proto: goo.gle/debugonly\ndtype: DT_FLOAT\n"
        "\t [[{{node adam_7/dense_22_kernel_momentum/Initializer/zeros}}]] [Op:__inference_initialize_variables_1]"
    )
    bases = (f"{TF}.InvalidArgumentError", f"{TF}.OpError", "builtins.Exception")
    errors = (ErrorText("InvalidArgumentError", message, (), bases),)
    assert expected == (find_oom(errors, Facts(), dumps) is not None)

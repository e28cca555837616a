"""What TensorFlow's kernels do with buffers: give their input's on, write into it, keep what they make."""

from __future__ import annotations

SAME = frozenset(
    "Identity IdentityN Reshape ExpandDims Squeeze StopGradient PreventGradient EnsureShape CheckNumerics Snapshot"
    " Bitcast Enter Exit NextIteration OptionalFromValue OptionalGetValue TensorListGetItem RefIdentity".split()
)
"""Kernels whose output is their input's own buffer (array_ops, identity_op.cc, reshape_op.h)."""

FROM_VARIABLE = frozenset({"ReadVariableOp", "VarHandleOp", "Placeholder"})
"""What these give is a variable's own buffer, or the caller's."""

LISTS = frozenset(
    "TensorListReserve EmptyTensorList TensorListSetItem TensorListPushBack TensorListFromTensor TensorListPopBack"
    " TensorListResize".split()
)
"""Kernels that make a list of tensors or change one: a list holds its elements and has no buffer of its own."""

COPIES_ROWS = "TensorListFromTensor"
"""The kernel that makes a list of a tensor's rows: it copies each (list_kernels.h)."""

IN_PLACE = frozenset(
    "Abs Acos Acosh Add AddN AddV2 Asin Asinh Atan Atanh BiasAdd Ceil Conj Cos Cosh Digamma Div DivNoNan"
    " Elu EluGrad Erf Erfc Exp Expm1 Floor FloorDiv FloorMod FusedBatchNormV3 Inv InvGrad LeakyRelu LeakyReluGrad"
    " Lgamma Log Log1p"
    " LogSoftmax Maximum Minimum Mod Mul MulNoNan Neg OnesLike Pow RealDiv Reciprocal ReciprocalGrad Relu Relu6"
    " Relu6Grad ReluGrad Rint Round Rsqrt RsqrtGrad Select SelectV2 Selu SeluGrad Sigmoid SigmoidGrad Sign Sin Sinh"
    " Softmax Softplus SoftplusGrad Softsign SoftsignGrad SparseSoftmaxCrossEntropyWithLogits"
    " SoftmaxCrossEntropyWithLogits Sqrt SqrtGrad Square SquaredDifference Sub Tan Tanh TanhGrad TruncateDiv Xdivy"
    " Xlogy ZerosLike _FusedMatMul ClipByValue".split()
)
"""Kernels that write their output into an input of the same size and type which nobody else needs any more."""

FORWARDS = {"SparseSoftmaxCrossEntropyWithLogits": 1, "SoftmaxCrossEntropyWithLogits": 1, "FusedBatchNormV3": 0}
"""Of kernels with several outputs, the one that may take an input's buffer; elsewhere the first."""

FUSED = ("Conv", "DepthwiseConv2dNative", "MatMul", "BiasAdd", "BatchMatMul")
"""Beginnings of the types that the optimizer fuses with a bias and an activation after them (remapper.cc)."""

LASTING = frozenset({"Const"})
"""What these make lives as long as the graph."""

EFFECTS = frozenset(
    "AssignVariableOp AssignAddVariableOp AssignSubVariableOp ResourceScatterAdd ResourceScatterUpdate"
    " ResourceScatterSub RngReadAndSkip StatefulUniformFullInt IteratorGetNext Print PrintV2 Assert EagerPyFunc PyFunc"
    " LookupTableImportV2 WriteSummary SummaryWriter".split()
)
"""Kernels that run though nobody reads what they give."""

ASSIGNING = frozenset({"AssignVariableOp", "AssignAddVariableOp"})
"""Kernels that may give a variable another buffer, or its first."""

UPDATES = ("Resource", "Assign")
"""Prefixes of kernels that change a variable."""


def has_effect(kind: str) -> bool:
    """Whether an operation runs even where nobody reads its outputs."""
    return kind in EFFECTS or kind.startswith("ResourceApply") or kind.startswith("ResourceSparseApply")


def copies_what_is_read(kind: str) -> bool:
    """Whether an operation that changes a variable makes a copy of it first where something still reads it.

    (PrepareToUpdateVariable in training_op_helpers.h: what reads a variable has its own buffer.)
    """
    return kind in ("AssignAddVariableOp", "AssignSubVariableOp") or kind.startswith("ResourceApply")

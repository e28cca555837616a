"""``apply.narrower`` on real Keras models: what gets narrower, what must not, and what is refused."""

import pytest

from tests.script import found_by

MODELS = """
def residual():
    h = L.Dense(32, "relu")(i := keras.Input((16,)))
    for _ in range(2):
        h = L.Add()([h, L.Dense(32, "relu")(L.LayerNormalization()(h))])
    return keras.Model(i, L.Dense(3, "softmax")(h))
def residual_to_the_inputs():
    i = keras.Input((32,)); h = i + L.Dense(32)(i)
    return keras.Model(i, L.Dense(3)(L.Dense(40)(h)))
def transformer():
    i = keras.Input((12,), dtype="int32"); e = L.Embedding(50, 32)(i)
    h = L.LayerNormalization()(e + L.MultiHeadAttention(4, 8)(e, e))
    h = h + L.Dense(32)(L.Dense(64, "gelu")(h))
    return keras.Model(i, L.Dense(5, "softmax")(L.GlobalAveragePooling1D()(h)))
def squeeze():
    i = keras.Input((16, 16, 3)); h = L.Conv2D(32, 3, padding="same")(i)
    s = L.Conv2D(8, 1)(L.Reshape((1, 1, 32))(L.GlobalAveragePooling2D()(h)))
    h = L.Multiply()([h, L.Conv2D(32, 1, activation="sigmoid")(s)])
    h = L.BatchNormalization()(L.DepthwiseConv2D(3)(h))
    return keras.Model(i, L.Dense(4)(L.GlobalAveragePooling2D()(h)))
def unet():
    i = keras.Input((16, 16, 3)); a = L.Conv2D(16, 3, padding="same")(i)
    b = L.SeparableConv2D(32, 3, padding="same")(L.MaxPooling2D()(a))
    c = L.Concatenate()([a, L.Conv2DTranspose(24, 2, 2)(b)])
    return keras.Model(i, L.Conv2D(1, 1, activation="sigmoid")(c))
def decoder():
    h = L.Reshape((4, 4, 16))(L.Dense(4 * 4 * 16)(i := keras.Input((8,))))
    return keras.Model(i, L.Conv2D(1, 3)(L.Conv2DTranspose(32, 3, 2)(h)))
def recurrent():
    i = keras.Input((12,), dtype="int32"); h = L.Embedding(50, 16, mask_zero=True)(i)
    h = L.Bidirectional(L.LSTM(16, return_sequences=True))(h)
    return keras.Model(i, L.Dense(1, activation="sigmoid")(L.GRU(16)(h)))
def states():
    _, a, b = L.LSTM(16, return_state=True)(e := keras.Input((6, 8)))
    h = L.LSTM(16, return_sequences=True)(d := keras.Input((6, 8)), initial_state=[a, b])
    return keras.Model([e, d], L.Dense(3)(h))
def normalized():
    n = L.Normalization(); n.adapt(np.random.default_rng(0).random((10, 8)) * 5)
    return keras.Sequential([keras.Input((8,)), n, L.Dense(16), L.Dense(1)])
def shared():
    d = L.Dense(16); h = L.Concatenate()([d(i := keras.Input((8,))), d(j := keras.Input((8,)))])
    return keras.Model([i, j], L.Dense(1)(h))
def without_input():
    model = keras.Sequential([L.Dense(16, "relu"), L.Dense(2)]); model(np.zeros((1, 4), "float32"))
    return model
def grouped():
    h = L.Conv2D(16, 3, groups=4)(L.Conv2D(16, 3)(i := keras.Input((8, 8, 4))))
    return keras.Model(i, L.Dense(2)(L.GlobalMaxPooling2D()(L.Conv2D(24, 1)(h))))
def split():
    a, b = keras.ops.split(L.Dense(32)(i := keras.Input((16,))), 2, axis=-1)
    return keras.Model(i, L.Dense(2)(L.Dense(20)(a * b)))
def frozen():
    model = keras.Sequential([keras.Input((8,)), L.Dense(16), L.Dense(2)]); model.layers[0].trainable = False
    return model
def small():
    return keras.Sequential([keras.Input((8,)), L.Dense(4), L.Dense(16), L.Dense(2)])
def half():
    return keras.Sequential([keras.Input((8,)), L.Dense(16, dtype="mixed_bfloat16"), L.Dense(2, dtype="float32")])
def mobilenet():
    return keras.applications.MobileNetV2(alpha=0.35, weights=None, input_shape=(32, 32, 3), classes=5)

def residual_around_the_output():
    h = L.Dense(16)(i := keras.Input((16,)))
    return keras.Model(i, L.Add()([h, L.Dense(16)(h)]))
def group_normalized():
    h = L.GroupNormalization(32)(L.Conv2D(32, 3)(i := keras.Input((8, 8, 3))))
    return keras.Model(i, L.Dense(2)(L.Flatten()(h)))
def constant():
    h = L.Dense(32)(i := keras.Input((4,))) + np.ones((1, 32), "float32")
    return keras.Model(i, L.Dense(2)(h))
def nested():
    return keras.Sequential([keras.Input((8,)), keras.Sequential([L.Dense(8)], name="inner"), L.Dense(2)])
class Own(L.Layer):
    def call(self, x): return x
def custom(): return keras.Sequential([keras.Input((8,)), L.Dense(16), Own(), L.Dense(2)])
def function(): return keras.Sequential([keras.Input((8,)), L.Dense(16), L.Lambda(lambda x: x), L.Dense(2)])
def first(): return keras.Sequential([keras.Input((3, 8, 8)), L.Conv2D(16, 3, data_format="channels_first"), L.Flatten(), L.Dense(2)])
def words(): return keras.Sequential([keras.Input((1,), dtype="string"), L.StringLookup(vocabulary=["a"]), L.Embedding(3, 8), L.Dense(2)])
class Net(keras.Model):
    def __init__(self): super().__init__(); self.d = L.Dense(8)
    def call(self, x): return self.d(x)
def subclass(): m = Net(); m(np.zeros((1, 4))); return m
def unbuilt(): return keras.Sequential([L.Dense(16), L.Dense(2)])
"""

SCRIPT = (
    "import json, sys, keras, numpy as np\nL = keras.layers\nfrom tf_mem_magic import apply\n"
    "from tf_mem_magic.remedies.deploy._widths import check_widths\n"
    + MODELS
    + """
found = {}
good, bad = json.load(sys.stdin)
for name in good:
    model = globals()[name]()
    before = [w.numpy() for w in model.weights]
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    check_widths(model)
    student = apply.narrower(model)
    inputs = [np.ones((2, *i.shape[1:]), keras.backend.standardize_dtype(i.dtype)) for i in model.inputs]
    out = student(inputs if len(inputs) > 1 else inputs[0])
    found[name] = {
        "widths": [w.shape[-1] for w in student.weights if w.path.endswith(("kernel", "embeddings"))],
        "shapes": [list(model.output_shape), list(student.output_shape)],
        "out": list(out.shape), "finite": bool(np.isfinite(keras.ops.convert_to_numpy(out).astype("float32")).all()),
        "share": student.count_params() / model.count_params(),
        "same": all((a == b.numpy()).all() for a, b in zip(before, model.weights)),
        "nodes": nodes == [len(layer._inbound_nodes) for layer in model.layers],
        "apart": not {id(v) for v in model.variables} & {id(v) for v in student.variables},
        "trainable": [v.trainable for v in student.weights],
        "policies": [layer.dtype_policy.name for layer in student.layers],
        "names": [layer.name for layer in model.layers] == [layer.name for layer in student.layers],
        "kept": [w.numpy().tolist() for w in student.weights[:2]] == [w.numpy().tolist() for w in model.weights[:2]],
    }
for name in bad:
    model, found[name] = globals()[name](), []
    for check in (check_widths, apply.narrower):
        try:
            check(model)
            found[name].append("")
        except (TypeError, ValueError) as error:
            found[name].append(str(error))
for width in (0, 1, 2):
    try:
        apply.narrower(small(), width)
    except ValueError as error:
        found[str(width)] = str(error)
found["quarter"] = [w.shape[-1] for w in apply.narrower(residual(), 0.25).weights if w.path.endswith("kernel")]
print("FOUND" + json.dumps(found))
"""
)

GOOD = {
    "residual": [16, 16, 16, 3],
    "residual_to_the_inputs": [32, 20, 3],
    "transformer": [16, 4, 4, 4, 16, 32, 16, 5],
    "squeeze": [16, 4, 16, 1, 4],
    "unet": [8, 1, 16, 16, 1],
    "decoder": [256, 16, 1],
    "recurrent": [8, 32, 32, 32, 32, 32, 24, 24, 1],
    "states": [32, 32, 32, 32, 3],
    "normalized": [8, 1],
    "shared": [8, 1],
    "without_input": [8, 2],
    "grouped": [16, 16, 12, 2],
    "split": [32, 10, 2],
    "frozen": [8, 2],
    "small": [4, 8, 2],
    "half": [8, 2],
    "mobilenet": None,
}
BAD = {
    "residual_around_the_output": "no layer of the model can be narrowed",
    "group_normalized": "no layer of the model can be narrowed",
    "constant": "no layer of the model can be narrowed",
    "nested": "it holds another model, `inner`",
    "custom": "is not one of Keras's own layers",
    "function": "is not one of Keras's own layers",
    "first": "has its channels first",
    "words": "which cannot be copied",
    "subclass": "needs a Sequential or functional model",
    "unbuilt": "is not built yet",
}


@pytest.fixture(scope="module")
def found():
    return found_by(SCRIPT, [list(GOOD), list(BAD)])


@pytest.mark.tf
@pytest.mark.parametrize("name", [name for name, widths in GOOD.items() if widths])
def test_the_layers_get_narrower_where_they_may(found, name):
    kernels = found[name]["widths"]
    if name == "recurrent":
        kernels = kernels[:1]
        assert found[name]["share"] < 0.4
    assert GOOD[name][: len(kernels)] == kernels


@pytest.mark.tf
@pytest.mark.parametrize("name", GOOD)
def test_inputs_and_outputs_stay_and_it_computes(found, name):
    one = found[name]
    assert one["shapes"][0] == one["shapes"][1]
    assert (True, one["shapes"][1][1:]) == (one["finite"], one["out"][1:])


@pytest.mark.tf
@pytest.mark.parametrize("name", GOOD)
def test_the_model_is_left_as_it_was(found, name):
    assert (True, True, True) == (found[name]["same"], found[name]["nodes"], found[name]["apart"])


@pytest.mark.tf
@pytest.mark.parametrize("name", GOOD)
def test_it_has_fewer_weights_in_layers_of_the_same_names(found, name):
    assert (True, True) == (found[name]["share"] < 1, found[name]["names"])


@pytest.mark.tf
def test_a_real_network_gets_much_smaller(found):
    assert found["mobilenet"]["share"] < 0.45


@pytest.mark.tf
def test_what_a_normalization_learned_of_the_inputs_is_kept(found):
    assert found["normalized"]["kept"]


@pytest.mark.tf
def test_frozen_layers_are_trained_in_the_student(found):
    assert [True] * 4 == found["frozen"]["trainable"]


@pytest.mark.tf
def test_each_layer_computes_in_as_many_bits_as_before(found):
    assert ["mixed_bfloat16", "float32"] == found["half"]["policies"]


@pytest.mark.tf
def test_the_width_is_chosen(found):
    assert [8, 8, 8, 3] == found["quarter"]


@pytest.mark.tf
@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_narrowed_is_refused_before_anything_is_built(found, name):
    assert [True, True] == [BAD[name] in reason for reason in found[name]], found[name]


@pytest.mark.tf
@pytest.mark.parametrize("width", ["0", "1", "2"])
def test_a_width_out_of_range_is_refused(found, width):
    assert "more than 0 and less than 1" in found[width]

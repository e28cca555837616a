"""Names that tell what a call does: what trains, what infers, and what does neither."""

from __future__ import annotations

TRAINS = frozenset(
    "GradientTape fit fit_generator train_on_batch apply_gradients minimize gradient gradients jacobian train_step "
    "apply assign assign_add assign_sub update_state_and_train batch_jacobian exec eval".split()
)
"""What trains, or may: methods of Keras and TensorFlow."""

INFERS = frozenset("predict predict_on_batch predict_generator test_on_batch evaluate evaluate_generator".split())
"""What surely trains nothing, and runs a model."""

OF_KERAS = frozenset(
    "summary save save_weights get_weights count_params reset_metrics reset_states reset_state compute_loss "
    "compute_metrics get_layer get_config to_json call __call__".split()
)
"""Other methods of Keras's models that do not train."""

MODULES = frozenset(
    "tensorflow keras numpy math time datetime matplotlib seaborn tqdm os sys re json csv random itertools collections "
    "functools operator statistics contextlib pathlib shutil glob io gc copy string pickle logging warnings typing "
    "pandas scipy sklearn PIL cv2 skimage imageio IPython tensorflow_datasets tensorflow_hub plotly wandb".split()
)
"""Libraries whose functions train no model of Keras; methods of what they make are judged by their names."""

METHODS = frozenset(
    # Of lists, dicts, sets, texts and files.
    "append extend insert clear sort reverse count index copy items keys values get pop setdefault add discard format "
    "join split strip rstrip lstrip replace lower upper startswith endswith encode decode zfill ljust rjust center "
    "write writerow flush close read readline mkdir exists "
    # Of arrays, tensors and tables.
    "numpy item tolist astype reshape flatten ravel squeeze transpose mean sum max min std var prod argmax argmin "
    "argsort cumsum round clip any all dot repeat get_shape as_list set_shape to_numpy head tail to_csv iloc loc "
    # Of datasets.
    "take skip batch unbatch shuffle cache prefetch enumerate as_numpy_iterator cardinality rebatch map "
    # Of metrics, and of what shows a progress or a figure.
    "update_state reset_state reset_states result set_description set_postfix set_postfix_str plot imshow scatter bar "
    "hist text set_title set_xlabel set_ylabel set_xticks set_yticks axis legend grid show savefig colorbar "
    "tight_layout scalar image now strftime total_seconds timestamp info debug warning".split()
)
"""Methods of whatever object that train nothing."""

COLLECTS = frozenset("tqdm trange Progbar dict defaultdict Counter OrderedDict set".split())
"""What makes something that ``update`` only tells a number or an entry."""

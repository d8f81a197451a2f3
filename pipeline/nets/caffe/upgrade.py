"""Older forms of a net -> today's: V0 and V1 layers, `input` fields, transformation fields in data layers.

What each step does is Caffe's src/caffe/util/upgrade_proto.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from google.protobuf.message import Message

from pipeline.codec import caffe_pb2
from pipeline.errors import NetError

V1_TYPES = {
    "ABSVAL": "AbsVal", "ACCURACY": "Accuracy", "ARGMAX": "ArgMax", "BNLL": "BNLL", "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss", "CONVOLUTION": "Convolution", "DATA": "Data",
    "DECONVOLUTION": "Deconvolution", "DROPOUT": "Dropout", "DUMMY_DATA": "DummyData", "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss", "EXP": "Exp", "FLATTEN": "Flatten", "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output", "HINGE_LOSS": "HingeLoss", "IM2COL": "Im2col", "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss", "INNER_PRODUCT": "InnerProduct", "LRN": "LRN", "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss", "MVN": "MVN", "NONE": "", "POOLING": "Pooling",
    "POWER": "Power", "RELU": "ReLU", "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss", "SILENCE": "Silence", "SLICE": "Slice",
    "SOFTMAX": "Softmax", "SOFTMAX_LOSS": "SoftmaxWithLoss", "SPLIT": "Split", "TANH": "TanH",
    "THRESHOLD": "Threshold", "WINDOW_DATA": "WindowData",
}  # fmt: skip

V0_TYPES = {
    "accuracy": "ACCURACY", "bnll": "BNLL", "concat": "CONCAT", "conv": "CONVOLUTION", "data": "DATA",
    "dropout": "DROPOUT", "euclidean_loss": "EUCLIDEAN_LOSS", "flatten": "FLATTEN", "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT", "im2col": "IM2COL", "images": "IMAGE_DATA", "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT", "lrn": "LRN", "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING", "relu": "RELU", "sigmoid": "SIGMOID", "softmax": "SOFTMAX", "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT", "tanh": "TANH", "window_data": "WINDOW_DATA",
}  # fmt: skip

# field of V0LayerParameter -> for each V0 type that may have it: the V1 field that takes it.
_V0_FIELDS: dict[str, dict[str, str]] = {
    "num_output": {"conv": "convolution_param.num_output", "innerproduct": "inner_product_param.num_output"},
    "biasterm": {"conv": "convolution_param.bias_term", "innerproduct": "inner_product_param.bias_term"},
    "weight_filler": {"conv": "convolution_param.weight_filler", "innerproduct": "inner_product_param.weight_filler"},
    "bias_filler": {"conv": "convolution_param.bias_filler", "innerproduct": "inner_product_param.bias_filler"},
    "pad": {"conv": "convolution_param.pad", "pool": "pooling_param.pad"},
    "kernelsize": {"conv": "convolution_param.kernel_size", "pool": "pooling_param.kernel_size"},
    "group": {"conv": "convolution_param.group"},
    "stride": {"conv": "convolution_param.stride", "pool": "pooling_param.stride"},
    "pool": {"pool": "pooling_param.pool"},
    "dropout_ratio": {"dropout": "dropout_param.dropout_ratio"},
    "local_size": {"lrn": "lrn_param.local_size"},
    "alpha": {"lrn": "lrn_param.alpha"},
    "beta": {"lrn": "lrn_param.beta"},
    "k": {"lrn": "lrn_param.k"},
    "concat_dim": {"concat": "concat_param.concat_dim"},
    "source": {"data": "data_param.source", "hdf5_data": "hdf5_data_param.source",
               "images": "image_data_param.source", "window_data": "window_data_param.source",
               "infogain_loss": "infogain_loss_param.source"},
    "batchsize": {"data": "data_param.batch_size", "hdf5_data": "hdf5_data_param.batch_size",
                  "images": "image_data_param.batch_size", "window_data": "window_data_param.batch_size"},
    "rand_skip": {"data": "data_param.rand_skip", "images": "image_data_param.rand_skip"},
    "shuffle_images": {"images": "image_data_param.shuffle"},
    "new_height": {"images": "image_data_param.new_height"},
    "new_width": {"images": "image_data_param.new_width"},
    "det_fg_threshold": {"window_data": "window_data_param.fg_threshold"},
    "det_bg_threshold": {"window_data": "window_data_param.bg_threshold"},
    "det_fg_fraction": {"window_data": "window_data_param.fg_fraction"},
    "det_context_pad": {"window_data": "window_data_param.context_pad"},
    "det_crop_mode": {"window_data": "window_data_param.crop_mode"},
    "hdf5_output_param": {"hdf5_output": "hdf5_output_param"},
}  # fmt: skip
_V0_TRANSFORM = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}

_DATA = {"Data": "data_param", "ImageData": "image_data_param", "WindowData": "window_data_param"}


def upgrade(net: caffe_pb2.NetParameter, warn: Callable[[str], None]) -> caffe_pb2.NetParameter:
    """The same net with `layer` messages only and an Input layer for each `input`.  `warn` takes what was odd."""
    if net.layers and net.layer:
        raise NetError(
            "the net mixes old and new layers",
            f"{len(net.layers)} `layers` and {len(net.layer)} `layer`",
            "write all of them as `layer { ... }`",
        )
    result = caffe_pb2.NetParameter()
    result.CopyFrom(net)
    if any(layer.HasField("layer") for layer in result.layers):
        _fold_padding(result)
        for layer in result.layers:
            _v0_to_v1(layer, warn)
    for old in result.layers:
        result.layer.append(_v1_to_layer(old))
        _move_transformation(result.layer[-1])
    del result.layers[:]
    _inputs_to_layers(result)
    for upgraded in result.layer:
        if upgraded.type == "BatchNorm" and len(upgraded.param) == 3:  # as it was written once: no solver moves them
            for param in upgraded.param:
                param.lr_mult = param.decay_mult = 0
    return result


def _fold_padding(net: caffe_pb2.NetParameter) -> None:
    """V0's padding layers become the `pad` of the convolution or pooling that reads them."""
    kept: list[caffe_pb2.V1LayerParameter] = []
    source: dict[str, caffe_pb2.V1LayerParameter | None] = dict.fromkeys(net.input)
    for connection in net.layers:
        layer = connection.layer
        target = caffe_pb2.V1LayerParameter()
        target.CopyFrom(connection)
        for index, blob in enumerate(connection.bottom):
            if blob not in source:
                raise NetError(f"unknown bottom blob '{blob}'", f"layer '{layer.name}', bottom index {index}")
            padding = source[blob]
            if padding is None or padding.layer.type != "padding":
                continue
            if layer.type not in ("conv", "pool") or len(connection.bottom) != 1 or len(padding.bottom) != 1:
                raise NetError(
                    f"layer '{layer.name}' of type '{layer.type}' reads a padding layer",
                    f"'{padding.layer.name}'",
                    "only conv and pool layers with one bottom may",
                )
            target.layer.pad = padding.layer.pad
            target.bottom[index] = padding.bottom[0]
        if layer.type != "padding":
            kept.append(target)
        for blob in connection.top:
            source[blob] = connection
    del net.layers[:]
    net.layers.extend(kept)


def _set(message: Message, path: str, value: object) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        message = getattr(message, parent)
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.is_repeated:
        getattr(message, name).append(value)
    elif isinstance(value, Message):
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)


def _v0_to_v1(connection: caffe_pb2.V1LayerParameter, warn: Callable[[str], None]) -> None:
    old = caffe_pb2.V0LayerParameter()
    old.CopyFrom(connection.layer)
    connection.ClearField("layer")
    connection.name = old.name
    if old.HasField("type"):
        if old.type not in V0_TYPES:
            raise NetError(
                f"unknown V0 layer type '{old.type}' of layer '{old.name}'",
                f"known: {', '.join(sorted(V0_TYPES))}, padding",
            )
        connection.type = getattr(caffe_pb2.V1LayerParameter, V0_TYPES[old.type])
    connection.blobs.extend(old.blobs)
    connection.blobs_lr.extend(old.blobs_lr)
    connection.weight_decay.extend(old.weight_decay)
    for field, value in old.ListFields():
        if field.name in _V0_TRANSFORM:
            _set(connection, f"transform_param.{_V0_TRANSFORM[field.name]}", value)
        elif field.name in _V0_FIELDS:
            path = _V0_FIELDS[field.name].get(old.type)
            if path is None:
                warn(f"layer '{old.name}': a layer of type '{old.type}' has no {field.name}; it is ignored")
            else:
                _set(connection, path, value)


def _copy(fields: Iterable[str], source: Message, target: Message) -> None:
    for name in fields:
        if source.HasField(name):
            getattr(target, name).CopyFrom(getattr(source, name))


def _v1_to_layer(old: caffe_pb2.V1LayerParameter) -> caffe_pb2.LayerParameter:
    layer = caffe_pb2.LayerParameter(name=old.name, bottom=old.bottom, top=old.top, loss_weight=old.loss_weight)
    kind = caffe_pb2.V1LayerParameter.LayerType.Name(old.type)
    layer.type = V1_TYPES[kind]
    layer.include.extend(old.include)
    layer.exclude.extend(old.exclude)
    if old.HasField("fault"):
        layer.fault = old.fault
    layer.blobs.extend(old.blobs)
    for index in range(max(len(old.param), len(old.blob_share_mode), len(old.blobs_lr), len(old.weight_decay))):
        spec = layer.param.add()
        if index < len(old.param):
            spec.name = old.param[index]
        if index < len(old.blob_share_mode):
            mode = caffe_pb2.V1LayerParameter.DimCheckMode.Name(old.blob_share_mode[index])
            spec.share_mode = getattr(caffe_pb2.ParamSpec, mode)
        if index < len(old.blobs_lr):
            spec.lr_mult = old.blobs_lr[index]
        if index < len(old.weight_decay):
            spec.decay_mult = old.weight_decay[index]
    _copy((field.name for field, _ in old.ListFields() if field.name.endswith("_param")), old, layer)
    return layer


def _inputs_to_layers(net: caffe_pb2.NetParameter) -> None:
    """`input` with `input_shape` or `input_dim` becomes one Input layer, before all others."""
    if not net.input:
        if net.input_dim or net.input_shape:
            raise NetError("the net gives input sizes but names no input", "", 'add `input: "data"`')
        return
    layer = caffe_pb2.LayerParameter(name="input", type="Input", top=net.input)
    if net.input_shape and net.input_dim:
        raise NetError("the net has input_shape and input_dim", "", "keep one of them")
    if net.input_shape:
        if len(net.input_shape) != len(net.input):
            raise NetError(f"the net names {len(net.input)} inputs but gives {len(net.input_shape)} input_shape")
        layer.input_param.shape.extend(net.input_shape)
    else:
        if len(net.input_dim) != 4 * len(net.input):
            raise NetError(
                f"the net gives {len(net.input_dim)} input_dim for {len(net.input)} inputs",
                "",
                "input_dim takes four numbers for each input; input_shape any number",
            )
        for first in range(0, len(net.input_dim), 4):
            layer.input_param.shape.add(dim=net.input_dim[first : first + 4])
    rest = list(net.layer)
    del net.layer[:]
    net.layer.append(layer)
    net.layer.extend(rest)
    for field in ("input", "input_dim", "input_shape"):
        net.ClearField(field)


def _move_transformation(layer: caffe_pb2.LayerParameter) -> None:
    """Data layers of the old form hold scale, mean_file, crop_size and mirror themselves; Caffe moves those alone."""
    if layer.type not in _DATA or not layer.HasField(_DATA[layer.type]):
        return
    parameters = getattr(layer, _DATA[layer.type])
    for field in ("scale", "mean_file", "crop_size", "mirror"):
        if parameters.HasField(field):
            setattr(layer.transform_param, field, getattr(parameters, field))
            parameters.ClearField(field)

"""What a graph of ONNX has around its network: padding, cropping and clamping, so that any runtime can use it alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddsa_arch.inference.exported import INPUT, OUTPUT, import_for_export

IR_VERSION = 9  # the newest that onnxruntime 1.17 reads
OPSETS = (18, 23)  # the lowest and the highest that torch's exporter writes; onnxruntime 1.17 reads up to 20
AXES = {0: 'batch', 2: 'height', 3: 'width'}  # of images
PADDED, RAW = 'rain_padded', 'derained_padded'


def finish(model: Any, multiple: int, fixed: int | None, batch: int | None) -> Any:
    """Let the graph of a network take any height and width, and give images of the same size in [0, 1].

    The image is extended at the bottom and the right by reflection, as ``ops.padding.pad_to_multiple`` does.

    Args:
        model: of the package onnx; its one input and output are changed in place.
        multiple: of height and width that the network takes.
        fixed: the only height and width that it takes, None for any; to it an image is not brought here.
        batch: the only number of images that it takes, None for any.

    Returns:
        The model itself.
    """
    graph, padded = model.graph, multiple > 1 and fixed is None
    del graph.value_info[:]  # they name sides that are not those of the image any more
    for node in graph.node:
        node.input[:] = [PADDED if padded and name == INPUT else name for name in node.input]
        node.output[:] = [RAW if name == OUTPUT else name for name in node.output]
        node.input[:] = [RAW if name == OUTPUT else name for name in node.input]
    writer = _Writer()
    if padded:
        before = _padding(writer, multiple)
        for place, node in enumerate(before):
            graph.node.insert(place, node)
        writer.nodes = []
    inside = writer.add('Slice', RAW, 'sides_zero', 'sides', 'sides_axes') if padded else RAW
    writer.add('Clip', inside, writer.number('zero', np.float32(0)), writer.number('one', np.float32(1)), out=OUTPUT)
    graph.node.extend(writer.nodes)
    graph.initializer.extend(writer.numbers)
    for value in (graph.input[0], graph.output[0]):
        for axis, name in AXES.items():
            side = value.type.tensor_type.shape.dim[axis]
            only = batch if axis == 0 else fixed
            side.ClearField('dim_param')
            if only is None:
                side.ClearField('dim_value')
                side.dim_param = name
    model.ir_version = min(model.ir_version, IR_VERSION)
    return model


class _Writer:
    """Collects nodes and the numbers that they take."""

    def __init__(self) -> None:
        self.onnx = import_for_export('onnx')
        self.nodes: list[Any] = []
        self.numbers: list[Any] = []

    def number(self, name: str, value: Any) -> str:
        """Add a number or an array under a name of this part of the graph."""
        name = f'any_size_{name}'
        if name not in [one.name for one in self.numbers]:
            self.numbers.append(self.onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, *inputs: str, out: str = '', **attributes: Any) -> str:
        """Add a node, and return the name of its output."""
        out = out or f'any_size_{kind.lower()}_{len(self.nodes)}'
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [out], **attributes))
        return out


def _padding(writer: _Writer, multiple: int) -> list[Any]:
    """Return the nodes that pad the image and keep its sides."""
    add, number = writer.add, writer.number
    shape, image = add('Shape', INPUT), INPUT
    sides = add('Slice', shape, number('two', np.array([2])), number('four', np.array([4])), out='sides')
    writer.numbers.append(writer.onnx.numpy_helper.from_array(np.array([0, 0]), 'sides_zero'))
    writer.numbers.append(writer.onnx.numpy_helper.from_array(np.array([2, 3]), 'sides_axes'))
    for place, axis in enumerate((2, 3)):
        size = add('Gather', sides, number(f'place_{place}', np.int64(place)))
        units = add('Div', add('Add', size, number('less', np.int64(multiple - 1))), number('unit', np.int64(multiple)))
        end = add('Mul', units, number('unit', np.int64(multiple)))
        places = add('Range', number('start', np.int64(0)), end, number('step', np.int64(1)))
        last = add('Sub', size, number('step', np.int64(1)))
        period = add('Max', add('Add', last, last), number('step', np.int64(1)))  # of a single pixel 1
        back = add('Abs', add('Sub', add('Mod', places, period), last))
        image = add(
            'Gather', image, add('Sub', last, back), axis=axis, out=PADDED if axis == 3 else f'any_size_rows_{axis}'
        )  # fmt: skip
    return writer.nodes


def store_half(model: Any) -> Any:
    """Store the weights of a model in float16, half the size, from which the graph makes float32 again.

    Every runtime has this operation, and folds it while it loads the file.

    Args:
        model: of the package onnx; changed in place.

    Returns:
        The model itself.
    """
    onnx = import_for_export('onnx')
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT or not weight.dims:
            continue
        name = weight.name
        values = onnx.numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, f'{name}_half'))
        casts.append(onnx.helper.make_node('Cast', [f'{name}_half'], [name], to=onnx.TensorProto.FLOAT))
    for place, node in enumerate(casts):
        model.graph.node.insert(place, node)
    return model

"""Small steps made by hand, for the memory model's tests."""

import re
from dataclasses import replace

from tf_mem_magic.core.step import Node, Step, Tensor

KIB = 1024


class Maker:
    """Adds operations one after another; each gives the place of its first output."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.given: list[int] = []

    def op(self, kind, name, *inputs, kib=0, shape=None, dtype="float32", after=(), **more):
        shape = (kib * KIB // 4,) if shape is None else shape
        outputs = more.pop("outputs", (Tensor(shape, dtype),))
        shares = more.pop("shares", (-1,) * len(outputs))
        self.nodes.append(Node(name, kind, tuple(inputs), after, outputs, shares, **more))
        return len(self.nodes) - 1, 0

    def argument(self, name, kib=0, shape=None):
        place = self.op("Placeholder", name, kib=kib, shape=shape)
        self.given.append(place[0])
        return place

    def step(self, *results, bodies=()):
        return Step(tuple(self.nodes), results, tuple(self.given), bodies)


def dense_stack(layers=3, batch=8, width=256):
    """A stack of dense layers with relu and its backward pass: what is alive when is known in closed form.

    Each activation is ``batch * width * 4`` bytes, each weight's gradient ``width * width * 4``.
    """
    made = Maker()
    x = made.argument("x", shape=(batch, width))
    kernels = [made.op("Placeholder", f"k{i}", dtype="resource", shape=()) for i in range(layers)]
    acts, read = [x], []
    for i in range(layers):
        weight = made.op("ReadVariableOp", f"m_1/dense_{i}_1/Read", kernels[i], shape=(width, width))
        read.append(weight)
        out = made.op("MatMul", f"m_1/dense_{i}_1/MatMul", acts[-1], weight, shape=(batch, width))
        acts.append(made.op("Relu", f"m_1/dense_{i}_1/Relu", out, shape=(batch, width)))
    grad = made.op("Mul", "gradient_tape/m_1/Mul", acts[-1], acts[-1], shape=(batch, width))
    for i in reversed(range(layers)):
        grad = made.op("ReluGrad", f"gradient_tape/m_1/dense_{i}_1/ReluGrad", grad, acts[i + 1], shape=(batch, width))
        of_weight = made.op("MatMul", f"gradient_tape/m_1/dense_{i}_1/MatMul_1", acts[i], grad, shape=(width, width))
        grad = made.op("MatMul", f"gradient_tape/m_1/dense_{i}_1/MatMul", grad, read[i], shape=(batch, width))
        update = made.op("Mul", f"sgd/Mul_{i}", of_weight, of_weight, shape=(width, width))
        made.op("AssignSubVariableOp", f"sgd/AssignSub_{i}", kernels[i], update, outputs=())
    return made.step()


def in_blocks(step, layers=2):
    """Put each so many dense layers of a stack into a layer that holds them: ``block_0``, ``block_1``, …"""
    names = (
        re.sub(r"m_1/dense_(\d+)_1/", lambda found: f"m_1/block_{int(found[1]) // layers}_1/{found[0][4:]}", node.name)
        for node in step.nodes
    )
    return replace(step, nodes=tuple(replace(node, name=name) for node, name in zip(step.nodes, names)))

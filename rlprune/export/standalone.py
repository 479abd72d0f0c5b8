"""A network as a Python module of its own: plain PyTorch code beside a file of weights."""

from __future__ import annotations

import importlib.util
import textwrap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from rlprune.files import write_tensors, write_text

WEIGHTS = "standalone.safetensors"

_HEAD = '''"""A pruned network as plain PyTorch code, for inference; torch and safetensors suffice.

    import standalone
    network = standalone.load()

The code is the network's forward pass as torch.export traced it; weights lie in {weights}.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import device, inf, nan, nn
from torch.utils import _pytree

NoneType = type(None)
WEIGHTS = Path(__file__).with_name("{weights}")
PARAMETERS = {parameters}
OUTPUT = _pytree.treespec_loads({output!r})


class Network(nn.Module):
    """Takes what the network took: {inputs}."""

    def __init__(self, tensors):
        super().__init__()
        for name, tensor in tensors.items():
            *path, last = name.split(".")
            part = self
            for step in path:
                if not hasattr(part, step):
                    part.add_module(step, nn.Module())
                part = getattr(part, step)
            if name in PARAMETERS:
                part.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
            else:
                part.register_buffer(last, tensor)

    def forward(self, *args, **kwargs):
        flat = _pytree.tree_leaves((args, kwargs))
        return _pytree.tree_unflatten(list(self._forward(*flat)), OUTPUT)

'''
_TAIL = '''

def load(path=WEIGHTS):
    """The network, in eval mode on the CPU."""
    return Network(load_file(path)).eval()
'''


def write_standalone(program: Any, path: Path) -> None:
    """Write an exported program as a Python module, and its weights beside it.

    Args:
        program: A ``torch.export`` program.
        path: The module's file.

    Raises:
        ValueError: What the network returns needs a class of another package to be built.
    """
    traced = program.module()
    graph = traced.graph
    graph.set_codegen(torch.fx.graph.CodeGen())
    for node in list(graph.nodes):
        if node.op == "call_module" and not node.users:  # checks of the inputs' sizes
            graph.erase_node(node)
    graph.eliminate_dead_code()
    read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    tensors = {name: _attribute(traced, name).detach().contiguous().clone() for name in read}
    parameters = sorted(read & {name for name, _ in traced.named_parameters()})
    given, output = program.call_spec.in_spec, program.call_spec.out_spec
    try:
        told = pytree.treespec_dumps(output)
    except Exception as error:
        raise ValueError(f"the network's output is no plain nest of tensors: {error}") from error
    if "transformers" in told:
        raise ValueError("the network's output is a class of transformers")
    code = graph.python_code("self").src.replace("def forward(", "def _forward(", 1)
    names = ", ".join(node.name for node in graph.nodes if node.op == "placeholder")
    head = _HEAD.format(
        weights=WEIGHTS,
        parameters="{" + "".join(f"\n    {name!r}," for name in parameters) + "\n}"
        if parameters
        else "set()",
        output=told,
        inputs=f"{names} ({given.num_leaves} tensors)" if given.num_leaves > 1 else names,
    )
    write_tensors(path.with_name(WEIGHTS), dict(sorted(tensors.items())))
    write_text(path, head + textwrap.indent(code.strip(), "    ") + "\n" + _TAIL)


def load_standalone(path: Path) -> nn.Module:
    """Import a module that :func:`write_standalone` wrote, and load its network."""
    spec = importlib.util.spec_from_file_location("standalone", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network: nn.Module = module.load()
    return network


def _attribute(module: nn.Module, name: str) -> Tensor:
    found: Any = module
    for step in name.split("."):
        found = getattr(found, step)
    if not isinstance(found, Tensor):
        raise ValueError(f"{name} of the exported program is no tensor")
    return found

"""What the text of an answer may not newly contain. The second line of defence: a trace from inside the script's own
process could be forged, the text cannot.

Only what the answer adds to the person's script counts; what was there already is theirs.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

IMPORTS = {
    "torch", "diffusers", "transformers", "accelerate", "torchao", "bitsandbytes", "peft", "gguf", "optimum", "gc", "os",
    "math", "numpy", "PIL", "typing", "__future__", "xformers", "contextlib",
}  # fmt: skip
_NAMES = {"eval", "exec", "compile", "globals", "locals", "vars", "open", "setattr", "delattr", "__import__", "input",
          "breakpoint", "exit", "quit", "memoryview", "suppress", "SystemExit", "KeyboardInterrupt", "BaseException"}  # fmt: skip
_PROBES = {
    "get_device_name", "get_device_properties", "get_device_capability", "mem_get_info", "memory_allocated",
    "memory_reserved", "max_memory_allocated", "max_memory_reserved", "memory_stats", "memory_summary", "device_count",
    "suppress", "fromfile", "memmap", "loadtxt", "genfromtxt", "register_forward_hook", "register_forward_pre_hook",
    "memory_snapshot", "get_objects", "get_referrers", "_getframe", "currentframe", "stack", "modules", "meta_path",
    "settrace", "setprofile", "set_per_process_memory_fraction", "getenv", "_exit", "exit", "abort", "kill",
}  # fmt: skip
_OWN = ("torch.backends", "torch._inductor.config", "torch._dynamo.config", "torch.set_float32_matmul_precision")
_ENVIRONMENT = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "TOKENIZERS_PARALLELISM", "HF_ENABLE_PARALLEL_LOADING",
                "CUDA_VISIBLE_DEVICES", "DIFFUSERS_ATTN_BACKEND")  # fmt: skip


def broken(original: str, answer: str) -> Iterator[str]:
    """What the answer adds that it may not. Empty: the text is fit to be run and graded."""
    try:
        before, after = Counter(_marks(ast.parse(original))), Counter(_marks(ast.parse(answer)))
    except (SyntaxError, ValueError, RecursionError) as error:
        yield f"is not Python: {error}"
        return
    yield from after - before


def _marks(tree: ast.Module) -> Iterator[str]:
    """One entry for every suspicious thing in a script."""
    modules = _imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from _import(node)
        elif isinstance(node, ast.ExceptHandler):
            yield "catches an exception: a failure of the card must not be hidden"
        elif isinstance(node, ast.Name) and node.id in _NAMES:
            yield f"uses {node.id}"
        elif isinstance(node, ast.Attribute):
            yield from _attribute(node)
        elif isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete)):
            yield from _assignment(node, modules)
        elif isinstance(node, ast.Call):
            yield from _call(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _text(node.value)
        elif isinstance(node, (ast.ClassDef, ast.AsyncFunctionDef)):
            yield f"defines {node.name}"


def _imported(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


def _import(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or "."]
    for name in names:
        if name.split(".")[0] not in IMPORTS:
            yield f"imports {name}"
        if any(part.startswith("_") for part in name.split(".")[1:]):
            yield f"imports the private {name}"


def _attribute(node: ast.Attribute) -> Iterator[str]:
    if node.attr in _PROBES:
        yield f"looks at .{node.attr}"
    if node.attr.startswith("__") or node.attr in ("_C", "_storage_handle", "_spec"):
        yield f"reaches for .{node.attr}"


def _assignment(node: ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete, modules: set[str]) -> Iterator[str]:
    targets = node.targets if isinstance(node, (ast.Assign, ast.Delete)) else [node.target]
    for target in targets:
        text = ast.unparse(target)
        root = text.split(".")[0].split("[")[0]
        if isinstance(target, ast.Attribute) and root in modules and not text.startswith(_OWN):
            yield f"replaces {text}"
        if isinstance(target, ast.Attribute) and target.attr in ("__call__", "step", "forward", "decode"):
            yield f"replaces {text}"
        if text.startswith("os.environ[") and not any(name in text for name in _ENVIRONMENT):
            yield f"sets {text}"


def _call(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    if name.endswith(".to"):
        for argument in (*node.args, *(k.value for k in node.keywords)):
            if (
                isinstance(argument, ast.Constant)
                and str(argument.value).startswith("cpu")
                and name.endswith("pipe.to")
            ):
                yield "puts the pipeline on the CPU"
    if name in ("os.environ.get", "getattr", "hasattr", "isinstance", "type", "os._exit", "sys.exit"):
        yield f"calls {name}"


def _text(value: str) -> Iterator[str]:
    for word in ("oomdoctor", "VirtualTensor", "scenario.json", "/proc/", "heldout.lock"):
        if word in value:
            yield f"mentions {word}"

"""Attention kernels that diffusers takes from the Hub with the ``kernels`` package: nothing is fetched in a virtual run."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

from oomdoctor.loading import hooks, session
from oomdoctor.loading.attention import flash, sage
from oomdoctor.loading.attention.package import Package, refuse

FUNCTIONS: dict[str, dict[str, Any]] = {
    "kernels-community/flash-attn2": flash.FUNCTIONS_2,
    "kernels-community/flash-attn": flash.FUNCTIONS_2,
    "kernels-community/flash-attn3": flash.FUNCTIONS_3,
    "kernels-community/vllm-flash-attn3": flash.FUNCTIONS_3,
    "kernels-community/flash-attn4": flash.FUNCTIONS_3,
    "kernels-community/sage_attention": sage.FUNCTIONS,
    "SageAttention/sage-attention": sage.FUNCTIONS,
}
"""Repository -> the functions that stand in for its kernel."""


def get_kernel(repo_id: str, *args: Any, **options: Any) -> Any:
    """Stands in for ``kernels.get_kernel``. Raises RuntimeError for kernels that nothing here stands in for."""
    functions = FUNCTIONS.get(repo_id)
    if functions is None:
        raise RuntimeError(
            f"the virtual GPU has no stand-in for the kernel {repo_id}; it knows {', '.join(sorted(FUNCTIONS))}"
        )
    session.current().note(f"the first real run downloads the kernel {repo_id} from the Hub.")
    module = ModuleType(repo_id.rpartition("/")[2].replace("-", "_"))
    vars(module).update(functions)
    interface = ModuleType(f"{module.__name__}.flash_attn_interface")
    training = (
        "_flash_attn_forward",
        "_flash_attn_backward",
        "_flash_attn_varlen_forward",
        "_flash_attn_varlen_backward",
    )
    vars(interface).update(dict.fromkeys(training, flash.for_training))
    module.flash_attn_interface = interface  # type: ignore[attr-defined]
    return module


def patch_dispatch(module: ModuleType) -> None:
    """After ``import diffusers.models.attention_dispatch``: who publishes a kernel is not asked, there is no network."""
    fetch: Callable[..., Any] | None = getattr(module, "_maybe_download_kernel_for_backend", None)
    if fetch is None:
        return

    def without_network(*args: Any, **options: Any) -> Any:
        outer, module.HF_HUB_OFFLINE = getattr(module, "HF_HUB_OFFLINE", True), True  # type: ignore[attr-defined]
        try:
            return fetch(*args, **options)
        finally:
            module.HF_HUB_OFFLINE = outer  # type: ignore[attr-defined]

    hooks.replace(module, "_maybe_download_kernel_for_backend", without_network)


def _fill(module: ModuleType) -> None:
    vars(module).update(get_kernel=get_kernel, __version__=PACKAGE.version, __getattr__=refuse("kernels"))


PACKAGE = Package(
    "kernels",
    "0.13.0",
    {"kernels": _fill},
    re.compile(r"['\"]\w+_hub['\"]|\._?[A-Z]\w+_HUB\b|\bget_kernel\b"),
    "kernels",
)

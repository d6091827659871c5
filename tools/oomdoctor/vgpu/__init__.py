"""The virtual GPU: run a PyTorch program against a card that is not there.

Tensors have shapes and memory but, when large, no data; every allocation goes through a model of PyTorch's caching
allocator; the program dies with ``torch.OutOfMemoryError`` where the card would. Imports torch and nothing else.

    with virtual_gpu(VirtualCard("rtx-3060-12gb", "NVIDIA GeForce RTX 3060", total_bytes=12 << 30)) as world:
        import diffusers
        ...
    world.gpu.allocator.peak_reserved
"""

from oomdoctor.vgpu.card import VirtualCard
from oomdoctor.vgpu.host import HostExhausted
from oomdoctor.vgpu.session import renew, virtual_gpu
from oomdoctor.vgpu.tensor import VirtualTensor, empty_virtual
from oomdoctor.vgpu.world import World, current

__all__ = ["HostExhausted", "VirtualCard", "VirtualTensor", "World", "current", "empty_virtual", "renew", "virtual_gpu"]

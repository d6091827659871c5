"""AMD cards from invented driver files and tool outputs."""

from __future__ import annotations

import json

import pytest
from oomdoctor.hardware.detect.amd import find_amd

GIB = 1 << 30
CARD = "/sys/class/drm/card1/device"
FILES = {
    f"{CARD}/vendor": "0x1002",
    f"{CARD}/device": "0x744c",
    f"{CARD}/mem_info_vram_total": 24 * GIB,
    f"{CARD}/mem_info_vram_used": 2 * GIB,
    f"{CARD}/current_link_speed": "2.5 GT/s PCIe",
    f"{CARD}/max_link_speed": "16.0 GT/s PCIe",
    f"{CARD}/current_link_width": 16,
    f"{CARD}/max_link_width": 16,
    "/sys/class/drm/card1-DP-1/status": "connected",
    "/sys/class/drm/card0/device/vendor": "0x8086",
    "/dev/kfd": "",
}
AMD_SMI = json.dumps([{"gpu": 0, "asic": {"market_name": "Radeon RX 7900 XTX"}}])
ROCM_SMI = json.dumps({"card0": {"Card Series": "Radeon RX 7900 XTX"}, "system": {"Driver version": "6.8"}})


def test_memory_and_link_from_the_drivers_files(machine):
    programs = {"amd-smi static --asic --json": AMD_SMI}
    found = find_amd(machine(FILES, programs=programs))
    (gpu,) = found.gpus
    assert (gpu.name, gpu.family, gpu.index) == ("AMD Radeon RX 7900 XTX", "hip", 0)
    assert (gpu.total_bytes, gpu.free_bytes) == (24 * GIB, 22 * GIB)
    assert gpu.compute_capability is None
    assert gpu.pcie is not None
    assert (gpu.pcie.generation, gpu.pcie.max_generation, gpu.pcie.max_lanes) == (1, 4, 16)
    assert found.notes == ()


@pytest.mark.parametrize(
    "programs",
    [
        {"amd-smi static --asic --json": json.dumps({"gpu_data": json.loads(AMD_SMI)})},  # newer amd-smi
        {"rocm-smi --showproductname --json": ROCM_SMI},  # no amd-smi
        {"amd-smi static --asic --json": "not json", "rocm-smi --showproductname --json": ROCM_SMI},
    ],
)
def test_names_from_whichever_tool_there_is(machine, programs):
    (gpu,) = find_amd(machine(FILES, programs=programs)).gpus
    assert gpu.name == "AMD Radeon RX 7900 XTX"


def test_without_tools_the_name_is_the_device_number(machine):
    (gpu,) = find_amd(machine(FILES)).gpus
    assert gpu.name == "AMD GPU 0x744c"
    assert gpu.total_bytes == 24 * GIB


def test_rocm_smi_alone(machine):
    listed = {
        "card0": {
            "VRAM Total Memory (B)": str(192 * GIB),
            "VRAM Total Used Memory (B)": str(GIB),
            "Card Series": "AMD Instinct MI300X",
        }
    }
    command = "rocm-smi --showmeminfo vram --showproductname --json"
    (gpu,) = find_amd(machine({"/dev/kfd": ""}, programs={command: json.dumps(listed)})).gpus
    assert (gpu.name, gpu.total_bytes, gpu.free_bytes) == ("AMD Instinct MI300X", 192 * GIB, 191 * GIB)


def test_a_card_without_rocm_is_said_to_be_unusable(machine):
    found = find_amd(machine({k: v for k, v in FILES.items() if k != "/dev/kfd"}))
    assert any("/dev/kfd" in note for note in found.notes)


def test_memory_that_the_driver_does_not_tell_is_unknown(machine):
    found = find_amd(machine({f"{CARD}/vendor": "0x1002", "/dev/kfd": ""}))
    assert found.gpus[0].total_bytes is None
    assert any("unknown" in note for note in found.notes)


def test_a_gpu_inside_the_processor_shares_the_ram(machine):
    found = find_amd(machine(FILES | {f"{CARD}/mem_info_vram_total": GIB // 2, f"{CARD}/mem_info_vram_used": 0}))
    assert any("shares the machine's RAM" in note for note in found.notes)


def test_a_machine_without_amd(machine):
    assert find_amd(machine()) == ((), (), None)


def test_processes_as_the_compute_driver_counts_them(machine):
    node = "/sys/class/kfd/kfd/topology/nodes/1"
    files = {
        f"{CARD}/drm/renderD129/dev": "226:129",
        f"{node}/properties": "simd_count 192\ndrm_render_minor 129",
        f"{node}/gpu_id": 45966,
        "/sys/class/kfd/kfd/topology/nodes/0/properties": "drm_render_minor 0",
        "/sys/class/kfd/kfd/proc/700/vram_45966": 3 * GIB,
        "/sys/class/kfd/kfd/proc/800/vram_45966": 5 * GIB,
        "/sys/class/kfd/kfd/proc/900/vram_11111": GIB,  # holds memory of another card
        "/sys/class/kfd/kfd/proc/950/vram_45966": 0,
        "/proc/800/comm": "python3",
    }
    (gpu,) = find_amd(machine({**FILES, **files})).gpus
    assert [(p.pid, p.name, p.used_bytes) for p in gpu.processes] == [
        (800, "python3", 5 * GIB),
        (700, None, 3 * GIB),
    ]

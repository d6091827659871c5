"""Apple, Intel and Windows: as far as their tools tell, else "unknown" in so many words."""

from __future__ import annotations

import json

from oomdoctor.hardware.detect.others import find_apple, find_intel, find_windows

GIB = 1 << 30
APPLE = {"sysctl -n machdep.cpu.brand_string": "Apple M2 Max\n", "sysctl -n hw.memsize": f"{32 * GIB}\n"}


def test_apple_silicon_shares_its_ram(machine):
    found = find_apple(machine(platform="darwin", programs=APPLE))
    (gpu,) = found.gpus
    assert (gpu.name, gpu.family, gpu.total_bytes, gpu.free_bytes) == ("Apple M2 Max", "mps", 32 * GIB, None)
    assert "unknown" in found.notes[0]


def test_apple_with_a_limit_set_by_hand(machine):
    found = find_apple(machine(platform="darwin", programs=APPLE | {"sysctl -n iogpu.wired_limit_mb": "28672\n"}))
    assert found.gpus[0].total_bytes == 28 * GIB
    assert "unknown" not in found.notes[0]


def test_a_mac_with_an_intel_processor(machine):
    displays = {"SPDisplaysDataType": [{"sppci_model": "AMD Radeon Pro 5500M"}]}
    programs = {
        "sysctl -n machdep.cpu.brand_string": "Intel(R) Core(TM) i9",
        "system_profiler SPDisplaysDataType -json": json.dumps(displays),
    }
    found = find_apple(machine(platform="darwin", programs=programs))
    assert found.gpus == ()
    assert "AMD Radeon Pro 5500M" in found.notes[0]
    assert "unknown" in found.notes[0]


def test_apple_is_looked_for_on_macs_only(machine):
    assert find_apple(machine(programs=APPLE)).gpus == ()


def test_intel_through_xpu_smi(machine):
    programs = {
        "xpu-smi discovery -j": json.dumps({"device_list": [{"device_id": 0, "device_name": "Intel(R) Arc(TM) A770"}]}),
        "xpu-smi discovery -d 0 -j": json.dumps({"memory_physical_size_byte": str(16 * GIB)}),
    }
    found = find_intel(machine(programs=programs))
    (gpu,) = found.gpus
    assert (gpu.name, gpu.family, gpu.total_bytes, gpu.free_bytes) == ("Intel(R) Arc(TM) A770", "xpu", 16 * GIB, None)
    assert "unknown" in found.notes[0]


def test_an_arc_without_its_tool_is_named_unknown(machine):
    bus = "/sys/bus/pci/devices"
    files = {
        f"{bus}/0000:03:00.0/vendor": "0x8086",
        f"{bus}/0000:03:00.0/class": "0x030000",
        f"{bus}/0000:03:00.0/driver/uevent": "",
    }
    found = find_intel(machine(files))
    assert found.gpus == ()
    assert "unknown" in found.notes[0]


def test_the_gpu_of_an_intel_processor_is_not_a_card(machine):
    bus = "/sys/bus/pci/devices/0000:00:02.0"
    files = {f"{bus}/vendor": "0x8086", f"{bus}/class": "0x030000", f"{bus}/driver/uevent": ""}
    assert find_intel(machine(files)) == ((), (), None)


def test_windows_names_what_it_cannot_measure(machine):
    command = "powershell -NoProfile -Command (Get-CimInstance Win32_VideoController).Name"
    listed = "AMD Radeon RX 7900 XTX\r\nNVIDIA GeForce RTX 3060\r\n"
    found = find_windows(machine(platform="win32", programs={command: listed}))
    assert found.gpus == ()
    assert len(found.notes) == 1
    assert "AMD Radeon RX 7900 XTX" in found.notes[0]
    assert "unknown" in found.notes[0]

"""NVIDIA cards through an invented driver."""

from __future__ import annotations

import pynvml
import pytest
from oomdoctor.hardware.detect.nvidia import find_nvidia
from oomdoctor.hardware.detect.nvml import Nvml, cuda_version

MIB = 1 << 20


def test_a_card_with_everything(driver, device, machine):
    library = driver(device(compute=[(1234, 500 * MIB)], graphics=[(1234, 500 * MIB), (9, 40 * MIB)]))
    found = find_nvidia(Nvml(library), machine())
    (gpu,) = found.gpus
    assert (gpu.name, gpu.family, gpu.index, gpu.compute_capability) == ("NVIDIA GeForce RTX 3060", "cuda", 0, (8, 6))
    assert gpu.total_bytes == (12288 - 250) * MIB  # as torch sees it: without the driver's reserve
    assert gpu.free_bytes == (12288 - 250 - 700) * MIB
    assert gpu.driver_version == "570.86.15"
    assert gpu.mig is None
    assert gpu.pcie is not None
    assert (gpu.pcie.generation, gpu.pcie.max_generation, gpu.pcie.max_lanes) == (1, 4, 16)
    # Listed as compute and graphics, yet counted once; largest first; the program's bare name.
    assert [(p.pid, p.name, p.used_bytes) for p in gpu.processes] == [
        (1234, "python3.11", 500 * MIB),
        (9, None, 40 * MIB),
    ]
    assert any("up to 12.8" in note for note in found.notes)
    assert library.open_count == 0  # closed again


def test_clients_of_a_shared_context_are_processes_too(driver, device, machine):
    (gpu,) = find_nvidia(Nvml(driver(device(compute=[(9, 30 * MIB)], clients=[(1234, 600 * MIB)]))), machine()).gpus
    assert [(p.pid, p.used_bytes) for p in gpu.processes] == [(1234, 600 * MIB), (9, 30 * MIB)]


@pytest.mark.parametrize(
    "amount",
    [
        None,  # WDDM, WSL
        2**64 - 1,  # older pynvml, same meaning
        0,  # containers
    ],
)
def test_a_process_whose_memory_is_unavailable(driver, device, machine, amount):
    (gpu,) = find_nvidia(Nvml(driver(device(compute=[(77, amount)]))), machine()).gpus
    assert [(p.pid, p.name, p.used_bytes) for p in gpu.processes] == [(77, None, None)]


def test_an_old_driver_knows_only_the_first_version_of_memory(driver, device, machine):
    class Old(type(driver())):
        def nvmlDeviceGetMemoryInfo(self, handle, version=None):
            if version:
                raise self.NVMLError("Function Not Found")
            return super().nvmlDeviceGetMemoryInfo(handle)

    (gpu,) = find_nvidia(Nvml(Old([device()])), machine()).gpus
    assert gpu.total_bytes == 12288 * MIB
    assert gpu.free_bytes == (12288 - 250 - 700) * MIB


def test_a_pynvml_that_gives_bytes(driver, device, machine):
    (gpu,) = find_nvidia(Nvml(driver(device(), bytes_names=True)), machine()).gpus
    assert (gpu.name, gpu.driver_version) == ("NVIDIA GeForce RTX 3060", "570.86.15")


def test_mig_slices_stand_for_their_card(driver, device, machine):
    part = device(
        name="NVIDIA A100 80GB PCIe MIG 1g.10gb", total_mib=9728, reserved_mib=0, used_mib=12, capability=None
    )
    card = device(
        name="NVIDIA A100 80GB PCIe", total_mib=81920, capability=(8, 0), mig_mode=1, slices=[part, None, part]
    )
    gpus = find_nvidia(Nvml(driver(card)), machine()).gpus
    assert [g.name for g in gpus] == ["NVIDIA A100 80GB PCIe MIG 1g.10gb"] * 2
    assert all(g.mig and g.total_bytes == 9728 * MIB and g.compute_capability == (8, 0) for g in gpus)


def test_mig_mode_without_an_instance_is_no_card(driver, device, machine):
    found = find_nvidia(Nvml(driver(device(name="NVIDIA H100 80GB HBM3", mig_mode=1))), machine())
    assert found.gpus == ()
    assert any("MIG mode without an instance" in note for note in found.notes)


def test_a_card_that_could_be_cut_but_is_not(driver, device, machine):
    (gpu,) = find_nvidia(Nvml(driver(device(name="NVIDIA A100-SXM4-80GB", mig_mode=0))), machine()).gpus
    assert gpu.mig is False


@pytest.mark.parametrize(("model", "word"), [(0, "WDDM"), (1, "TCC"), (2, "TCC"), (None, None)])
def test_driver_model(driver, device, machine, model, word):
    assert find_nvidia(Nvml(driver(device(driver_model=model))), machine(platform="win32")).driver_model == word


def test_memory_that_nvml_does_not_tell_is_unknown(driver, device, machine):
    """Jetson and GB10: the GPU has no memory of its own."""
    system = machine({"/etc/nv_tegra_release": "R36"})
    found = find_nvidia(Nvml(driver(device(name="Orin (nvgpu)", total_mib=None, link=None))), system)
    (gpu,) = found.gpus
    assert gpu.total_bytes is None
    assert gpu.free_bytes is None
    assert gpu.pcie is None
    assert any("unknown" in note and "Jetson" in note for note in found.notes)


def test_a_lost_card_does_not_hide_the_others(driver, device, machine):
    found = find_nvidia(Nvml(driver(None, device())), machine())
    assert [g.index for g in found.gpus] == [1]
    assert any("GPU 0 does not answer" in note for note in found.notes)


def test_no_library_and_no_driver_is_silent(no_driver, machine):
    assert find_nvidia(no_driver, machine()) == ((), (), None)


@pytest.mark.parametrize(
    ("reason", "files", "expected"),
    [
        ("NVML Shared Library Not Found", {"/proc/driver/nvidia/version": "NVRM"}, "--gpus all"),
        ("NVML Shared Library Not Found", {"/proc/version": "Linux 5.15 Microsoft-standard-WSL2"}, "driver in Windows"),
        ("Driver/library version mismatch", {}, "Driver/library version mismatch"),
        ("Insufficient Permissions", {}, "Insufficient Permissions"),
    ],
)
def test_why_nvml_cannot_be_used(driver, machine, reason, files, expected):
    found = find_nvidia(Nvml(driver(failure=reason)), machine(files))
    assert found.gpus == ()
    assert len(found.notes) == 1
    assert expected in found.notes[0]


def test_the_door_without_opening(device, driver):
    """A call before ``open`` meets a driver that refuses: the default, not an exception."""
    library = driver(device())
    library.nvmlDeviceGetCount = lambda: (_ for _ in ()).throw(library.NVMLError("Uninitialized"))
    nvml = Nvml(library)
    assert nvml.ask("DeviceGetCount", default=0) == 0
    assert nvml.ask("NoSuchCall", 1, default="absent") == "absent"
    nvml.close()
    assert library.open_count == 0  # never opened, so not shut down either


def test_the_real_library_answers_or_says_why():
    nvml = Nvml()
    reason = nvml.open()
    assert reason is None or isinstance(reason, str)
    assert isinstance(nvml.ask("DeviceGetCount", default=0), int)
    nvml.close()


def test_the_names_that_are_called_exist_in_pynvml():
    """The door turns a misspelt call into a default, so the spelling is checked here."""
    source = (find_nvidia.__code__.co_filename, Nvml.open.__code__.co_filename)
    import re

    names = set()
    for path in source:
        with open(path, encoding="utf-8") as file:
            names |= set(re.findall(r'\.ask\("(\w+)"', file.read()))
    names |= {"DeviceGetComputeRunningProcesses", "DeviceGetGraphicsRunningProcesses"}
    assert len(names) > 12
    assert [n for n in names if not hasattr(pynvml, f"nvml{n}")] == []
    assert hasattr(pynvml, "nvmlMemory_v2")


def test_cuda_version():
    assert cuda_version(12080) == "12.8"
    assert cuda_version(13000) == "13.0"
    assert cuda_version(None) is None

"""``detect_hardware`` as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest
from oomdoctor.errors import BadInterpreter
from oomdoctor.hardware import detect_hardware
from oomdoctor.hardware.detect import machine as module
from oomdoctor.hardware.detect.nvml import Nvml
from oomdoctor.rendering import hardware as rendered
from oomdoctor.values.hardware import Gpu, GpuProcess, Hardware, PcieLink, Ram

MIB = 1 << 20
WSL = {"/proc/version": "Linux version 5.15.167.4-microsoft-standard-WSL2"}


@pytest.fixture
def torch_is(monkeypatch):
    def set_version(version: str | None) -> None:
        monkeypatch.setattr(module, "installed_versions", lambda python: ("/usr/bin/python3", {"torch": version}))

    return set_version


def test_a_machine_without_a_gpu_is_a_normal_answer(no_driver, machine):
    hardware = detect_hardware(nvml=no_driver, system=machine())
    assert hardware.gpus == ()
    assert hardware.driver_model is None
    assert hardware.ram.available_bytes > 0
    assert "No GPU was found" in hardware.notes[0]


def test_a_machine_with_a_card(driver, device, machine):
    hardware = detect_hardware(nvml=Nvml(driver(device())), system=machine())
    (gpu,) = hardware.gpus
    assert gpu.card == "rtx-3060-12gb"
    assert hardware.python == sys.executable
    assert hardware.disk_free_bytes is not None
    assert type(hardware).model_validate_json(hardware.model_dump_json()) == hardware


def test_a_card_that_the_catalogue_lacks(driver, device, machine):
    (gpu,) = detect_hardware(nvml=Nvml(driver(device(name="NVIDIA X9 9999"))), system=machine()).gpus
    assert gpu.card is None


def test_wsl(driver, device, machine):
    library = driver(device(compute=[(1, None)], driver_model=None))
    hardware = detect_hardware(nvml=Nvml(library), system=machine(WSL))
    assert hardware.driver_model == "WSL"
    assert "WSL" in hardware.os
    assert hardware.ram.pinned_cap_bytes == 500 * MIB
    assert any("many times slower" in note for note in hardware.notes)


def test_wddm(driver, device, machine):
    library = driver(device(driver_model=0))
    hardware = detect_hardware(nvml=Nvml(library), system=machine(platform="win32"))
    assert hardware.driver_model == "WDDM"
    assert any(note.startswith("WDDM") for note in hardware.notes)


def test_tcc_has_nothing_to_spill_into(driver, device, machine):
    hardware = detect_hardware(nvml=Nvml(driver(device(driver_model=1))), system=machine(platform="win32"))
    assert hardware.driver_model == "TCC"
    assert not any("many times slower" in note for note in hardware.notes)


@pytest.mark.parametrize(
    ("version", "note"),
    [
        ("2.13.0+cpu", "build for CPUs"),
        ("2.6.0+rocm6.2", "build for AMD"),
        ("2.6.0+cu124", None),
        (None, "not installed"),
    ],
)
def test_a_build_of_torch_that_does_not_match(driver, device, machine, torch_is, version, note):
    torch_is(version)
    hardware = detect_hardware(nvml=Nvml(driver(device())), system=machine())
    said = [n for n in hardware.notes if n.startswith("torch")]
    assert (note is None and not said) or any(note in n for n in said)


def test_a_cpu_build_on_a_machine_without_a_gpu_is_fine(no_driver, machine, torch_is):
    torch_is("2.13.0+cpu")
    assert not any("build for CPUs" in n for n in detect_hardware(nvml=no_driver, system=machine()).notes)


def test_what_changes_torchs_numbering_is_said(driver, device, machine):
    two = driver(device(), device(name="NVIDIA GeForce RTX 4090", total_mib=24564, capability=(8, 9)))
    hardware = detect_hardware(nvml=Nvml(two), system=machine(environ={"CUDA_VISIBLE_DEVICES": "1"}))
    assert [g.card for g in hardware.gpus] == ["rtx-3060-12gb", "rtx-4090-24gb"]
    assert any("CUDA_VISIBLE_DEVICES is 1" in n for n in hardware.notes)
    assert any("PCI bus" in n for n in hardware.notes)


def test_disk_space_of_a_folder_that_is_not_made_yet(no_driver, machine, tmp_path):
    there = detect_hardware(nvml=no_driver, system=machine(), disk_path=str(tmp_path))
    later = detect_hardware(nvml=no_driver, system=machine(), disk_path=str(tmp_path / "a" / "b"))
    assert there.disk_free_bytes is not None
    assert later.disk_free_bytes == pytest.approx(there.disk_free_bytes, rel=0.05)


def test_a_wrong_interpreter_is_the_users_to_mend(no_driver, machine):
    with pytest.raises(BadInterpreter):
        detect_hardware(nvml=no_driver, system=machine(), python="/no/such/python")


def test_torch_is_not_imported():
    program = (
        "import sys; from oomdoctor.hardware import detect_hardware; detect_hardware(); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("value", [Hardware, Gpu, GpuProcess, PcieLink, Ram])
def test_every_field_is_explained(value):
    for name, field in value.model_fields.items():
        assert field.description and len(field.description.split()) > 3, f"{value.__name__}.{name}"
        if name.endswith("_bytes"):
            assert "ytes" in field.description or "planning" in field.description, f"{value.__name__}.{name}"


def test_which_fields_to_plan_with_is_said():
    assert "for planning" in (Gpu.model_fields["free_bytes"].description or "")
    assert "for planning" in (Ram.model_fields["available_bytes"].description or "")
    assert "Plan with" in (PcieLink.__doc__ or "")


@pytest.mark.parametrize(("name", "said"), [("HIP_VISIBLE_DEVICES", "0,1"), ("ROCR_VISIBLE_DEVICES", "")])
def test_hidden_amd_cards_are_told(machine, no_driver, name, said):
    card = "/sys/class/drm/card0/device"
    files = {f"{card}/vendor": "0x1002", f"{card}/mem_info_vram_total": 24 << 30, "/dev/kfd": ""}
    found = detect_hardware(system=machine(files, environ={name: said}), nvml=no_driver)
    assert any(note.startswith(f"{name} is {said or 'empty'}:") for note in found.notes)


def test_what_a_person_reads(driver, device, machine):
    part = device(name="NVIDIA A100 MIG 1g.10gb", total_mib=9728, reserved_mib=0, used_mib=0, capability=None)
    card = device(name="NVIDIA A100 80GB PCIe", capability=(8, 0), mig_mode=1, slices=[part], compute=[(9, None)])
    plain = device(total_mib=None, compute=[(1234, None)])
    text = rendered(detect_hardware(nvml=Nvml(driver(card, plain)), system=machine(WSL)))
    for words in (
        "NVIDIA A100 MIG 1g.10gb: 9.5 GiB free of 9.5 GiB", "driver 570.86.15, PCIe 4.0 x16, a MIG slice",
        "process 1234 python3.11 holds unknown", "NVIDIA GeForce RTX 3060: unknown free of unknown",
        "at most 500 MiB of it page-locked",
    ):  # fmt: skip
        assert words in text, (words, text)
    assert text.count("(WSL)") == 1

"""``detect_hardware`` as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest
from oomdoctor.errors import BadInterpreter
from oomdoctor.hardware import detect_hardware
from oomdoctor.hardware.detect import machine as module
from oomdoctor.hardware.detect.nvml import Nvml

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

"""What other programs say of the machine: ``nvidia-smi`` and the kernel's log."""

from __future__ import annotations

from oomdoctor.hardware import card

from oomdoctor_evals.values import MIB, Machine


def nvidia_smi(machine: Machine) -> str:
    """The table before the script was started, with the other process when there is one."""
    one = card(machine.gpu)
    total = one.total_bytes // MIB
    used = machine.used_by_others_mib + (9 if machine.used_by_others_mib else 3)
    bar = "+-----------------------------------------------------------------------------------------+"
    lines = [bar, "| NVIDIA-SMI 570.133.20             Driver Version: 570.133.20     CUDA Version: 12.8     |", bar]
    for index in range(machine.count):
        lines.append(f"|   {index}  {one.label:<32}   |   {used:>6}MiB / {total:>6}MiB |      0%      Default |")
    lines += [bar, "| Processes:                                                                              |"]
    if machine.used_by_others_mib:
        name = "python3 serve.py" if machine.used_by_others_mib > 4000 else "/usr/lib/xorg/Xorg"
        lines.append(f"|    0   N/A  N/A            4711      C   {name:<24} {machine.used_by_others_mib:>8}MiB      |")
    else:
        lines.append("|  No running processes found                                                             |")
    return "\n".join([*lines, bar, ""])


def dmesg(machine: Machine, peak_bytes: int) -> str:
    """The kernel's words when it ended the script for want of memory."""
    kib = min(peak_bytes >> 10, machine.ram_mib << 10)
    limit = f"memory: usage {machine.ram_mib << 10}kB, limit {machine.ram_mib << 10}kB, failcnt 8821\n"
    return (
        "[81724.310511] python invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n"
        f"[81724.310782] {limit}"
        f"[81724.311406] Memory cgroup out of memory: Killed process 21873 (python) total-vm:{kib * 2}kB, "
        f"anon-rss:{kib}kB, file-rss:118220kB, shmem-rss:0kB, UID:1000 pgtables:71228kB oom_score_adj:0\n"
    )

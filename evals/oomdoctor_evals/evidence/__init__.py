"""What the person pastes: the virtual run's own error, put into the form that people's logs have."""

from __future__ import annotations

from oomdoctor_evals.evidence.machine import dmesg, nvidia_smi
from oomdoctor_evals.evidence.styles import styled

__all__ = ["dmesg", "nvidia_smi", "styled"]

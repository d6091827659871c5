"""The frozen values that flow: traceback -> Diagnosis -> Measurement -> Strategy -> Patch -> Trial -> Cure.

They are the only thing the rooms share, and the same models are the JSON of the command line and of the MCP tools.
"""

from oomdoctor.values.base import Quality, Stage, Value
from oomdoctor.values.diagnosis import Confidence, DeviceFamily, Diagnosis, Frame, Kind
from oomdoctor.values.hardware import Calibration, Card, Gpu, GpuProcess, Hardware, PcieLink, Ram, Target
from oomdoctor.values.measurement import Block, Component, Measurement, ModuleNode, StageUse, Trace
from oomdoctor.values.outcome import Comparison, ComparisonRow, Cure, Patch, Reason, SavedFile, Trial, TrialStage
from oomdoctor.values.questions import CardNeed, Formula, LargestJob, Spreading
from oomdoctor.values.script import (
    Adapter,
    Call,
    Certainty,
    Known,
    Loaded,
    Optimisation,
    PipelineUse,
    Placement,
    Script,
    Span,
)
from oomdoctor.values.strategy import Application, Estimate, Plan, Proof, StagePeak, Strategy, StrategyOption
from oomdoctor.values.timeline import Alive, CallSpan, MemoryTimeline, Moment, Stretch

__all__ = [
    "Adapter", "Alive", "Application", "Block", "Calibration",
    "Call", "CallSpan", "Card", "CardNeed", "Certainty", "Comparison", "ComparisonRow", "Component", "Confidence", "Cure", "DeviceFamily",
    "Diagnosis", "Estimate", "Formula", "Frame", "Gpu", "GpuProcess", "Hardware", "Kind", "Known", "LargestJob", "Loaded", "Measurement", "MemoryTimeline",
    "ModuleNode", "Moment", "Optimisation", "Patch", "PcieLink", "PipelineUse", "Placement", "Plan", "Proof", "Quality", "Ram",
    "Reason", "SavedFile", "Script", "Span", "Spreading", "Stage", "StagePeak", "StageUse", "Strategy", "StrategyOption", "Stretch", "Target", "Trace",
    "Trial", "TrialStage", "Value",
]  # fmt: skip

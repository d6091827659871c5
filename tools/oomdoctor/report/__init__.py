"""What a person gets to see of runs: text, a picture, a comparison, files for PyTorch's memory viewer and Perfetto."""

from oomdoctor.report.bar import Bar
from oomdoctor.report.comparison import comparison_table
from oomdoctor.report.perfetto import write_trace
from oomdoctor.report.plot import plot_comparison, plot_run
from oomdoctor.report.snapshot import write_snapshot
from oomdoctor.report.text import run_report

__all__ = [
    "Bar", "comparison_table", "plot_comparison", "plot_run", "run_report", "write_snapshot", "write_trace",
]  # fmt: skip

"""What stands in for weights inside a virtual run.

Imported by the user's own interpreter: torch, the standard library and ``oomdoctor.vgpu`` only. ``repos``, ``entries``
and ``snapshot`` do not even import torch, so that the main process shares them (see ``oomdoctor.models``).
"""

"""OOM Doctor: from an out-of-memory traceback and a diffusers script to a patch that is proven to run.

This file imports nothing, on purpose: ``oomdoctor.vgpu`` and ``oomdoctor.loading`` are imported by the user's own
interpreter, where none of our dependencies need to exist.
"""

__version__ = "0.1.0"

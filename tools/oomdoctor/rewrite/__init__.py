"""Strategy -> patched script and unified diff, and back."""

from oomdoctor.rewrite.engine import revert, rewrite

__all__ = ["revert", "rewrite"]

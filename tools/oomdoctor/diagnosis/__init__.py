"""From pasted text to a :class:`~oomdoctor.values.Diagnosis`: is it memory, which, where, why, and what follows.

Text flows through small steps: :mod:`condense` (a bounded part of any amount of text), :mod:`normalise` (one clean
:class:`~oomdoctor.diagnosis.normalise.Page`), :mod:`families` (which message it is, and its numbers), :mod:`frames`
and :mod:`stages` (where), :mod:`numbers` and :mod:`kinds` (why), :mod:`advice` (what follows, and what does not).
"""

from oomdoctor.diagnosis.reading import diagnose

__all__ = ["diagnose"]

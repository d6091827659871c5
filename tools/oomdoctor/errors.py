"""What can go wrong, in our words. Every message says what happened and what to do next.

Two kinds of failure, as in the MCP SDK: an :class:`OomDoctorError` was anticipated, its text is for the person and
carries the way out; anything else is a defect of ours. ``exit_status`` is what the command line returns
(0 done, 1 an honest no, 2 the input is at fault, 3 a defect).
"""

from __future__ import annotations


class OomDoctorError(Exception):
    """An anticipated failure. ``str(error)`` is one paragraph that ends with the next step."""

    exit_status = 2


class InputError(OomDoctorError):
    """Something that was handed over cannot be used as it is: a file, a traceback, a name."""


class UnreadableFile(InputError):
    """The file is missing, is a folder, is too large, may not be read, or is not text."""


class NotPython(InputError):
    """The script does not parse; the message has line and column."""


class NoPipeline(InputError):
    """The script parses but no diffusers pipeline (or model) is found in it."""


class NoError(InputError):
    """The pasted text has no error in it at all."""


class UnknownCard(InputError):
    """No card of the catalogue has that name, or more than one could be meant."""


class UnknownModel(InputError):
    """No config is at hand for that model: not local, not in the cache, not in the catalogue."""


class UnknownStrategy(InputError):
    """The strategy id does not parse, or names a technique or option that does not exist."""


class NotApplicable(InputError):
    """The technique is known but not legal for this script, model, machine or version."""


class BadInterpreter(InputError):
    """The interpreter that should run the script is missing or lacks torch or diffusers."""


class NoGpu(InputError):
    """A run on the real card was asked for where torch finds none."""


class NoConsent(InputError):
    """Running the user's own code was asked for without consent and without a sandbox."""


class OutsideRoots(InputError):
    """A path lies outside the folders that the server was allowed to touch."""


class WouldOverwrite(InputError):
    """The output file exists, or changed meanwhile; nothing was written."""


class NothingFits(OomDoctorError):
    """An honest no: no strategy fits; the message names the smallest change that would."""

    exit_status = 1


class TrialFailed(OomDoctorError):
    """The child process that runs a script could not be brought to a result (crash, garbage, time-out)."""

    exit_status = 3

"""Runs on the GPU of this machine. The child side (:mod:`child`, :mod:`watching`, :mod:`holding`) is not imported here."""

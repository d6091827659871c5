"""``python -m oomdoctor_mcp``: the same as ``oom-doctor serve``."""

import sys

from oomdoctor_mcp import serve

if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:]))

"""oqmgr(8): the name of an older queue manager. The program of qmgr(8), which replaces it.

called by: cleanup, postqueue, flush. asks: rewrite, delivery agents. writes: the queue. tells:
bounce, defer, trace. needs: the queue.
"""

from dataclasses import replace
from typing import Final

from daemons.qmgr import SERVICE as QMGR

__all__ = ["SERVICE"]

SERVICE: Final = replace(QMGR, program="oqmgr")

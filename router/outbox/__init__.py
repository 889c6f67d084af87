"""The outbox: requests that wait on the disk, and are sent when they may be."""

from .delivery import Delivery
from .entry import Ending, Entry, Receipt, State, expiry
from .leases import Lease
from .outbox import Outbox, Result
from .quota import Quota
from .replay import Replayer, Tally
from .store import Store

__all__ = [
    "Delivery",
    "Ending",
    "Entry",
    "Lease",
    "Outbox",
    "Quota",
    "Receipt",
    "Replayer",
    "Result",
    "State",
    "Store",
    "Tally",
    "expiry",
]

"""What is known of the network."""

from .connectivity import Connectivity
from .netlink import system_network
from .network import Network
from .reach import Reach
from .status import EndpointStatus, LinkStatus, Reachability

__all__ = ["Connectivity", "EndpointStatus", "LinkStatus", "Network", "Reach", "Reachability", "system_network"]

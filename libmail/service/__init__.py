"""What every daemon is built on: the skeleton, connections, clients of other services."""

"""What tables with queries share: client files, servers to choose among, queries and results."""

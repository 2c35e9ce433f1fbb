"""What the programs share that make mail traffic, and those that swallow it."""

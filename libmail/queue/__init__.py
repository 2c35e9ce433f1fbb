"""Queue files, their names and their directories."""

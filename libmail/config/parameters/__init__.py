"""Parameter declarations, one module an area; libmail.config.declared has them by name."""

"""Files: names that others could have planted, and files that survive a crash."""

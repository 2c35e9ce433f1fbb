"""The command-line programs, one module or package each."""

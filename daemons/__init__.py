"""The daemon programs, one module or package each, named as in master.cf."""

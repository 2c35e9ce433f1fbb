"""Commands that deliver: run as a user, fed, limited in time, and their exit status understood."""

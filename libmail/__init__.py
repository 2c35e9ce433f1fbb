"""What the daemons and commands of the mail system share."""

"""Writing messages into mailboxes: mbox files and Maildirs."""

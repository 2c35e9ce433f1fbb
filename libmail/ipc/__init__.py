"""How the programs of the mail system talk to each other: the codec and the messages."""

"""Tables made of others: debug, pipemap, randmap, unionmap."""

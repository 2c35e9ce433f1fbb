"""Tables that are files: indexed (lmdb, hash, btree, dbm, cdb), and text that is read whole."""

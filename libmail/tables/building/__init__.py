"""Making and changing tables: postmap, postalias, and upkeep while the system runs."""

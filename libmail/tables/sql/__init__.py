"""Tables that are queries to a database: mysql, pgsql, sqlite."""

"""Results as a table: a row for each, with parameters, returned values, facts of ancestors; conditions and groups."""

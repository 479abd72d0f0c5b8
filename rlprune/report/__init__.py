"""Reports: one run as a page and a table, many runs side by side."""

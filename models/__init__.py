"""Networks and the syntax of each family's payload. Knows no path and no image file."""

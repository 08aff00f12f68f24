"""Networks and the syntax of each family's payload. Knows no path, no command line, no image file."""

"""``turnout top``: rates, rows and lines by given values; and the command on a real gateway and a real terminal."""

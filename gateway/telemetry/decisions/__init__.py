"""The decision log: one record for every answer, in a chain that shows what was altered, removed or lost."""

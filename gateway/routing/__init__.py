"""Which version answers. Pure: table and facts in, decision out."""

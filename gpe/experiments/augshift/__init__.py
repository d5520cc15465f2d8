"""A network whose answer stays when the image moves (section 4.1, Table 2, Figure S2)."""

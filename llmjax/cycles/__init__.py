"""Cost + chip -> clock cycles, and cycles against the clock."""

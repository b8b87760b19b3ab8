"""Being here puts this folder on the import path: test packages share `ops.cases` (drawn cases for every op)."""

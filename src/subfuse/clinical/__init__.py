"""Clinical tables: patients, outcomes and labels, from plain tables and portals."""

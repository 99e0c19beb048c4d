"""What tests read of the machine and of the database, whichever environment they run in."""

from pathlib import Path

WHOLE_SCHEMA = """
SELECT table_name, column_name, data_type, is_nullable
FROM information_schema.columns WHERE table_schema = 'public'
UNION SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), ''
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION SELECT tablename, indexname, indexdef, tableowner
FROM pg_indexes JOIN pg_tables USING (schemaname, tablename) WHERE schemaname = 'public'
"""
"""All that half a migration could leave behind."""


def proportional_memory(pid: int) -> int:
    """Bytes, what is shared with others in part, as Linux tells."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) << 10 for line in rollup.splitlines() if line[:4] == "Pss:")

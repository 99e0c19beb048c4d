"""The query for everything in PostgreSQL's schema, for tests that compare two databases."""

# Half a migration could leave behind any of these.
WHOLE_SCHEMA = """
SELECT table_name, column_name, data_type, is_nullable
FROM information_schema.columns WHERE table_schema = 'public'
UNION SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), ''
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION SELECT tablename, indexname, indexdef, tableowner
FROM pg_indexes JOIN pg_tables USING (schemaname, tablename) WHERE schemaname = 'public'
"""

"""The service's database: SQLite on one host, PostgreSQL for many; the same statements, the same wall."""

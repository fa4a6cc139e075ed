"""Recovery runbooks for Neon Postgres: each module here is one, `registry` lists them all."""

-- Run once in each database, as its owner and on the direct host. What the two roles of the application may do is said
-- here, once for both. An application that also changes its schema needs, besides:
--   grant create on schema public to bloom_app;
create role bloom_app nologin;
grant usage on schema public to bloom_app;
grant select, insert, update, delete on all tables in schema public to bloom_app;
grant usage, select on all sequences in schema public to bloom_app;
alter default privileges in schema public grant select, insert, update, delete on tables to bloom_app;
alter default privileges in schema public grant usage, select on sequences to bloom_app;

-- Bloom's foreign keys, unique keys, indexes and triggers, after the rows are in; sequences behind the rows.

alter table clients
    add constraint clients_email_key unique (email),
    add constraint clients_referred_by_fkey foreign key (referred_by) references clients on delete set null;
alter table service_professionals
    add constraint service_professionals_service_fkey foreign key (service_id) references services on delete cascade,
    add constraint service_professionals_professional_fkey
        foreign key (professional_id) references professionals on delete cascade;
alter table reservations
    add constraint reservations_client_fkey foreign key (client_id) references clients on delete cascade,
    add constraint reservations_service_fkey foreign key (service_id) references services,
    add constraint reservations_professional_fkey
        foreign key (professional_id) references professionals on delete set null;
alter table payments
    add constraint payments_receipt_key unique (receipt),
    add constraint payments_reservation_fkey foreign key (reservation_id) references reservations on delete cascade;
alter table clinical_notes
    add constraint clinical_notes_reservation_fkey
        foreign key (reservation_id) references reservations on delete cascade,
    add constraint clinical_notes_author_fkey foreign key (author_id) references professionals on delete set null;
alter table "Invoice Items"
    add constraint "Invoice Items_Payment_fkey" foreign key ("Payment Id") references payments on delete cascade;

create index clients_referred_by_idx on clients (referred_by) where referred_by is not null;
create index reservations_client_idx on reservations (client_id);
create index reservations_professional_idx on reservations (professional_id);
create index reservations_starts_at_idx on reservations (starts_at);
create index payments_reservation_idx on payments (reservation_id);
create index clinical_notes_reservation_idx on clinical_notes (reservation_id);
create index clinical_notes_author_idx on clinical_notes (author_id);
create index "Invoice Items_Payment_idx" on "Invoice Items" ("Payment Id");

create function touch_updated_at() returns trigger language plpgsql as $$
begin
    new.updated_at := now();
    return new;
end
$$;

create function queue_mail() returns trigger language plpgsql as $$
begin
    insert into notification_outbox (reservation_id, template, recipient)
    select new.id, 'reserva-creada', email from clients where id = new.client_id;
    return null;
end
$$;

create function write_audit() returns trigger language plpgsql as $$
declare
    changed jsonb := to_jsonb(case when tg_op = 'DELETE' then old else new end);
begin
    insert into audit_log (table_name, action, row_id, detail)
    values (tg_table_name, tg_op, changed ->> 'id', changed);
    return null;
end
$$;

create trigger clients_touch before update on clients for each row execute function touch_updated_at();
-- On insert too: a recovery that fires it overwrites the old date.
create trigger reservations_touch before insert or update on reservations
    for each row execute function touch_updated_at();
create trigger reservations_mail after insert on reservations for each row execute function queue_mail();
create trigger clients_audit after insert or update or delete on clients
    for each row execute function write_audit();
create trigger reservations_audit after insert or update or delete on reservations
    for each row execute function write_audit();
create trigger payments_audit after insert or update or delete on payments
    for each row execute function write_audit();

select setval(pg_get_serial_sequence('clients', 'id'), max(id)) from clients;
select setval(pg_get_serial_sequence('professionals', 'id'), max(id)) from professionals;
select setval(pg_get_serial_sequence('reservations', 'id'), max(id)) from reservations;
select setval(pg_get_serial_sequence('payments', 'id'), max(id)) from payments;
select setval(pg_get_serial_sequence('"Invoice Items"', 'Id'), max("Id")) from "Invoice Items";
select setval(pg_get_serial_sequence('notification_outbox', 'id'), max(id)) from notification_outbox;
select setval('audit_log_id_seq', max(id)) from audit_log;

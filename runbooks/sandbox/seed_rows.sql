-- Bloom's rows. The setting bloom.clients says how many clients; everything else follows from it and from the ids,
-- so two databases of one size are equal to the last byte. In psql: set bloom.clients = 1000; \i seed_rows.sql
-- All of it happened between 1 August and 1 December 2025; later rows come from running programs.

-- A row's dice: 16 bytes that look random and are always the same for this table and id.
create function pg_temp.dice(kind text, id bigint) returns bytea immutable language sql
    return uuid_send(md5(kind || id)::uuid);
-- A number from 0 to below `sides` (at most 65,536), read from two of the 16 bytes.
create function pg_temp.roll(dice bytea, place integer, sides integer) returns integer immutable language sql
    return ((get_byte(dice, place) << 8) + get_byte(dice, place + 1)) % sides;
-- A moment of the history: row `id` of `total`, in order.
create function pg_temp.moment(id bigint, total bigint) returns timestamptz stable language sql
    return timestamptz '2025-08-01Z' + interval '2928 hours' * ((id - 1)::float8 / total);
create function pg_temp.name(dice bytea, place integer) returns text immutable language sql
    return (array['María', 'José Luis', 'Guadalupe', 'Juan Carlos', 'Sofía', 'Miguel Ángel', 'Valentina', 'Alejandro',
                  'Ximena', 'Jesús', 'Fernanda', 'Iñaki', 'Citlali', 'Emiliano', 'Regina', 'Cuauhtémoc',
                  'Ana Paula', 'Santiago', 'Itzel', 'Rodrigo'])[1 + pg_temp.roll(dice, place, 20)]
        || ' ' || (array['Hernández', 'García', 'Martínez', 'López', 'González', 'Pérez', 'Rodríguez', 'Sánchez',
                         'Ramírez', 'Núñez', 'Flores', 'Gómez', 'Muñoz', 'Cruz', 'Ibáñez', 'O''Farrill'])
                  [1 + pg_temp.roll(dice, place + 2, 16)]
        || ' ' || (array['Castillo', 'Jiménez', 'Ruiz', 'de la Peña', 'Aguilar', 'Vázquez', 'Mendoza', 'Zúñiga',
                         'Salazar', 'Contreras', 'Domínguez', 'Ávila', 'Cárdenas', 'Ríos', 'Luna', 'Peñaloza'])
                  [1 + pg_temp.roll(dice, place + 4, 16)];

-- rows: clients
insert into clients (id, public_id, full_name, email, phone, city, birth_date, referred_by, preferences, tags,
                     created_at, updated_at)
overriding system value
select id,
       md5('client' || id)::uuid,
       pg_temp.name(dice, 0),
       'cliente.' || id || '@correo.example',
       -- No Mexican number begins with 0, so none of these rings anywhere.
       case when pg_temp.roll(dice, 6, 20) > 0
            then '+52 55 0' || lpad((149 * pg_temp.roll(dice, 7, 65536))::text, 7, '0') end,
       (array['Ciudad de México', 'Guadalajara', 'Monterrey', 'Puebla', 'Mérida', 'León', 'Querétaro', 'Tijuana',
              'San Luis Potosí', 'Oaxaca de Juárez'])[1 + pg_temp.roll(dice, 8, 10)],
       date '1940-01-01' + pg_temp.roll(dice, 9, 24000),
       case when id > 1 and pg_temp.roll(dice, 10, 5) = 0 then 1 + pg_temp.roll(dice, 11, 65536) % (id - 1) end,
       jsonb_build_object('idioma', (array['es', 'es', 'es', 'en', 'nah'])[1 + pg_temp.roll(dice, 12, 5)],
                          'recordatorio_horas', pg_temp.roll(dice, 13, 72),
                          'boletin', pg_temp.roll(dice, 14, 2) = 0),
       (array['{}', '{nuevo}', '{frecuente,vip}', '{"alergia: penicilina"}'])[1 + pg_temp.roll(dice, 5, 4)]::text[],
       pg_temp.moment(id, total),
       pg_temp.moment(id, total)
from (select id, pg_temp.dice('client', id) as dice, current_setting('bloom.clients')::bigint as total
      from generate_series(1, current_setting('bloom.clients')::bigint) as id
      offset 0) as drawn;

-- rows: professionals
insert into professionals (id, full_name, specialty, license_number, languages, hourly_rate, active)
overriding system value
select id,
       case when id % 2 = 0 then 'Dra. ' else 'Dr. ' end || pg_temp.name(dice, 0),
       (array['Nutrición', 'Psicología', 'Fisioterapia', 'Dermatología', 'Ginecología', 'Pediatría', 'Acupuntura',
              'Medicina general'])[1 + pg_temp.roll(dice, 6, 8)],
       'CED-' || lpad(id::text, 7, '0'),
       case when pg_temp.roll(dice, 7, 3) = 0 then '{es,en}' else '{es}' end::text[],
       300 + 50 * pg_temp.roll(dice, 8, 25),
       pg_temp.roll(dice, 9, 20) > 0
from (select id, pg_temp.dice('professional', id) as dice
      from generate_series(1, 20 + current_setting('bloom.clients')::bigint / 200) as id
      offset 0) as drawn;

-- rows: services
insert into services (code, name, duration_minutes, price, tags)
values ('NUT-01', 'Consulta de nutrición', 45, 650.00, '{presencial,en línea}'),
       ('NUT-02', 'Seguimiento de nutrición', 30, 400.00, '{en línea}'),
       ('PSI-01', 'Terapia individual', 50, 900.00, '{presencial,en línea}'),
       ('PSI-02', 'Terapia de pareja', 80, 1450.50, '{presencial}'),
       ('FIS-01', 'Fisioterapia deportiva', 60, 780.00, '{presencial}'),
       ('FIS-02', 'Rehabilitación de rodilla', 60, 820.00, '{presencial}'),
       ('DER-01', 'Valoración dermatológica', 30, 1100.00, '{presencial}'),
       ('GIN-01', 'Revisión ginecológica anual', 40, 1250.00, '{presencial}'),
       ('PED-01', 'Consulta pediátrica', 30, 700.00, '{presencial,en línea}'),
       ('ACU-01', 'Sesión de acupuntura', 55, 560.75, '{}'),
       ('GEN-01', 'Consulta general', 20, 350.00, '{presencial,en línea}'),
       ('GEN-02', 'Certificado médico', 15, 0.00, '{presencial}');

-- rows: service_professionals
insert into service_professionals (service_id, professional_id, since)
select s.id, p.id, date '2020-01-01' + pg_temp.roll(pg_temp.dice('skill', s.id * 100000 + p.id), 0, 2000)
from services as s
join professionals as p on (p.id + s.id) % 4 = 0;

-- rows: reservations
insert into reservations (id, client_id, service_id, professional_id, status, starts_at, ends_at, price, discount,
                          details, created_at, updated_at)
select drawn.id,
       1 + (pg_temp.roll(dice, 0, 65536) * 65536::bigint + pg_temp.roll(dice, 2, 65536)) % clients,
       s.id,
       case when pg_temp.roll(dice, 4, 15) > 0
            then 1 + pg_temp.roll(dice, 5, 65536) % (20 + clients / 200) end,
       (array['completed', 'completed', 'completed', 'confirmed', 'pending', 'cancelled', 'no_show'])
           [1 + pg_temp.roll(dice, 7, 7)]::reservation_status,
       starts_at,
       starts_at + s.duration_minutes * interval '1 minute',
       s.price,
       (array[0, 0, 0, 0.10, 0.15, 0.50])[1 + pg_temp.roll(dice, 9, 6)],
       jsonb_build_object('canal', (array['web', 'app', 'teléfono'])[1 + pg_temp.roll(dice, 10, 3)],
                          'sala', pg_temp.roll(dice, 11, 12),
                          'motivo', (array['dolor lumbar', 'chequeo anual', 'estrés', 'control de peso', null])
                                    [1 + pg_temp.roll(dice, 12, 5)]),
       made_at,
       made_at + interval '1 hour' * pg_temp.roll(dice, 13, 48)
from (select id, clients, dice, made_at,
             1 + pg_temp.roll(dice, 6, 12) as service_id,
             date_trunc('day', made_at, 'UTC') + interval '15 minutes' * (32 + 96 * pg_temp.roll(dice, 8, 20)
                 + pg_temp.roll(dice, 14, 40)) as starts_at
      from (select id, current_setting('bloom.clients')::bigint as clients,
                   pg_temp.dice('reservation', id) as dice,
                   pg_temp.moment(id, 3 * current_setting('bloom.clients')::bigint) as made_at
            from generate_series(1, 3 * current_setting('bloom.clients')::bigint) as id
            offset 0) as numbered
      offset 0) as drawn
join services as s on s.id = drawn.service_id;

-- rows: payments
insert into payments (id, reservation_id, amount, method, receipt, metadata, paid_at)
overriding system value
select row_number() over (order by id),
       id,
       total,
       (array['card', 'card', 'cash', 'spei', 'oxxo'])[1 + pg_temp.roll(dice, 0, 5)]::payment_method,
       'R-' || lpad(id::text, 9, '0'),
       case when pg_temp.roll(dice, 2, 3) = 0
            then jsonb_build_object('meses', 3 * pg_temp.roll(dice, 3, 5), 'autorización', encode(dice, 'hex')) end,
       created_at + interval '1 minute' * pg_temp.roll(dice, 4, 600)
from (select id, total, created_at, pg_temp.dice('payment', id) as dice
      from reservations where status in ('completed', 'confirmed') offset 0) as paid;

-- rows: clinical_notes
insert into clinical_notes (id, reservation_id, author_id, body, vitals, icd10, written_at)
select md5('note' || id)::uuid,
       id,
       professional_id,
       (array['Paciente refiere dolor lumbar de tres semanas. Se indica reposo relativo.',
              E'Control de presión arterial.\nSin cambios en el tratamiento.',
              E'Primera consulta.\n\tAntecedentes: diabetes tipo 2, alergia a la penicilina ("anafilaxia" en 2011).',
              'Buena evolución; se cita en 30 días.',
              'Niña de 4 años con fiebre de 38.5 °C. Hidratación oral y vigilancia. \ sin exantema'])
           [1 + pg_temp.roll(dice, 0, 5)],
       case when pg_temp.roll(dice, 1, 4) > 0
            then jsonb_build_object('ta', 100 + pg_temp.roll(dice, 2, 60) || '/' || 60 + pg_temp.roll(dice, 3, 40),
                                    'peso_kg', round(45 + pg_temp.roll(dice, 4, 600) / 10.0, 1),
                                    'fc', 55 + pg_temp.roll(dice, 6, 50)) end,
       (array['{}', '{M54.5}', '{I10,E11.9}', '{Z00.0}'])[1 + pg_temp.roll(dice, 8, 4)]::text[],
       ends_at
from (select id, professional_id, ends_at, pg_temp.dice('note', id) as dice
      from reservations where status = 'completed' offset 0) as seen;

-- rows: Invoice Items
insert into "Invoice Items" ("Id", "Payment Id", "Description", "Amount MXN")
select 990 + 10 * row_number() over (order by p.id), p.id, s.name || ' (' || s.code || ')', p.amount
from payments as p
join reservations as r on r.id = p.reservation_id
join services as s on s.id = r.service_id
where p.id % 2 = 0;

-- rows: notification_outbox
insert into notification_outbox (id, reservation_id, template, recipient, queued_at, sent_at)
overriding system value
select row_number() over (order by r.id), r.id, 'reserva-creada', c.email, r.created_at, r.created_at + interval '9 s'
from reservations as r
join clients as c on c.id = r.client_id
where r.id % 3 = 0;

-- rows: web_hits
insert into web_hits (at, path, client, ms)
select date_trunc('second', pg_temp.moment(hit, total)),
       (array['/', '/reservar', '/reservar', '/mi-cuenta', '/especialistas'])[1 + pg_temp.roll(dice, 0, 5)],
       case when pg_temp.roll(dice, 1, 3) = 0 then 1 + pg_temp.roll(dice, 2, 65536) % total end,
       5 + pg_temp.roll(dice, 4, 400)
from (select hit, pg_temp.dice('hit', hit) as dice, current_setting('bloom.clients')::bigint as total
      -- Every third row is its neighbour once more.
      from (select id - id % 3 / 2 as hit from generate_series(1, current_setting('bloom.clients')::bigint) as id) as s
      offset 0) as drawn;

-- rows: audit_log
insert into audit_log (id, at, table_name, action, row_id, detail)
select row_number() over (order by id), created_at, 'reservations', 'INSERT', id,
       jsonb_build_object('estado', status, 'total', total)
from reservations
where id % 2 = 0;

-- What one batch brings, one type a kind of row. Composite arrays cost both sides less than parallel arrays of their columns.
-- `t` is a tenant's place among the batch's tenants, `append` an append's place among its appends, both from 1.
create type batch_tenant as (tenant text, events integer);
create type batch_append as (
    tenant text, stream text, partition smallint, epoch bigint, expected integer, version integer
);
create type batch_event as (
    -- `rank`: place among the tenant's events of this batch, from 1
    t integer, rank bigint, tenant text, stream text, version integer, kind text, body bytea, at bigint, endpoint text, cause text
);
create type batch_dedupe as (append integer, key bytea);
create type batch_alias as (append integer, endpoint text, external_id text, remove boolean, steal_from text);
create type batch_message as (
    -- `before`: how many of the tenant's events come before those of this append; then `MessageWrite` field by field
    t integer, before bigint, tenant text, conversation text,
    message_id text, status smallint, status_at bigint, seq bigint, at bigint, outbound boolean, origin text, kind text, content bytea,
    context bytea, author text, problems bytea, edited boolean, revoked boolean
);
create type batch_conversation as (
    -- then `ConversationWrite` field by field
    tenant text, id text,
    endpoint text, contact bytea, name text, preview text, last_at bigint, last_outbound boolean, unanswered integer, messages integer,
    merged_into text, absorbs text
);

-- The journal's one statement: check every append of a batch and record them all, or refuse by name and record nothing.
--
-- Order of locks, the same for all writers: the gate (shared), the tenants' feeds in order of their ids. Everything else an append writes
-- belongs to one of those tenants, so no two writers can wait for each other. `acquire_partitions` takes the gate exclusively: it waits for
-- commits under way, and those after it see the new epochs.
--
-- `now_ms` is when it is recorded, `me` who owns the partitions. Tenants come sorted. At most one row per message, alias and dedupe key.
-- Returns either `bases`, each tenant's head before this batch in their order (base + rank is an event's feed offset), or `refused`: a JSON
-- array of [append, outcome, payload], of which an append's first counts (fenced, version, duplicate, alias). A refusal is an everyday answer:
-- it undoes all and returns, instead of an error that would stand in the server's log.
create function append_batch(
    now_ms bigint, me text, tenants batch_tenant[], appends batch_append[], new_events batch_event[], keys batch_dedupe[],
    alias_writes batch_alias[], message_writes batch_message[], conversation_writes batch_conversation[], new_snapshots snapshots[],
    webhooks raw_webhooks[], quarantined quarantine[], out bases bigint[], out refused jsonb
) language plpgsql as $$
declare
    moved text[];
    started text[];
    fresh bytea[];
    more jsonb;
begin
    refused := '[]';
    perform pg_advisory_xact_lock_shared(1885434476, 2);

    with counted as (
        insert into feeds as f (tenant, epoch, head)
        select b.tenant, i.identity, b.events from unnest(tenants) b, installation i
        on conflict (tenant) do update set head = f.head + excluded.head
        returning f.tenant, f.head
    )
    select array_agg(c.head - b.events order by b.ordinality)
    from unnest(tenants) with ordinality b join counted c using (tenant)
    into bases;

    -- Heads and dedupe keys are written as they are checked: what cannot be written is refused, another tenant's stream too.
    -- Nobody else moves a head of these tenants now.
    with done as (
        update streams s set version = a.version from unnest(appends) a
        where s.stream = a.stream and s.tenant = a.tenant and s.version = a.expected and a.expected > 0
        returning s.stream
    )
    select array_agg(stream) from done into moved;
    with done as (
        insert into streams as s (stream, tenant, partition, version)
        select a.stream, a.tenant, a.partition, a.version from unnest(appends) a where a.expected = 0
        on conflict (stream) do update set version = excluded.version where s.version = 0 and s.tenant = excluded.tenant
        returning s.stream
    )
    select array_agg(stream) from done into started;
    with done as (
        insert into dedupe (key, at) select k.key, now_ms from unnest(keys) k on conflict do nothing returning key
    )
    select array_agg(key) from done into fresh;

    select jsonb_agg(jsonb_build_array(a.ordinality, 'fenced', a.partition))
    from unnest(appends) with ordinality a
    left join partitions p on p.partition = a.partition and p.epoch = a.epoch and p.owner = me
    where p.partition is null
    into more;
    refused := refused || coalesce(more, '[]');

    if coalesce(cardinality(moved), 0) + coalesce(cardinality(started), 0) < cardinality(appends) then
        select jsonb_agg(jsonb_build_array(a.ordinality, 'version', coalesce(s.version, 0)))
        from unnest(appends) with ordinality a left join streams s on s.stream = a.stream
        where a.stream <> all (coalesce(moved || started, '{}'))
        into more;
        refused := refused || more;
    end if;

    if coalesce(cardinality(fresh), 0) < cardinality(keys) then
        select jsonb_agg(jsonb_build_array(r.append, 'duplicate', r.known))
        from (select k.append, jsonb_agg(encode(k.key, 'hex')) as known
              from unnest(keys) k where k.key <> all (coalesce(fresh, '{}')) group by k.append) r
        into more;
        refused := refused || more;
    end if;

    if cardinality(alias_writes) > 0 then
        select jsonb_agg(jsonb_build_array(w.append, 'alias', jsonb_build_array(w.external_id, x.conversation)))
        from unnest(alias_writes) w
        join aliases x on x.tenant = (appends[w.append]).tenant and x.endpoint = w.endpoint and x.external_id = w.external_id
        where not w.remove and x.conversation <> (appends[w.append]).stream and x.conversation is distinct from w.steal_from
        into more;
        refused := refused || coalesce(more, '[]');
    end if;

    if refused <> '[]' then
        raise sqlstate 'PY001';
    end if;
    refused := null;

    insert into events (tenant, feed_offset, stream, version, kind, body, at, recorded_at, endpoint, cause)
    select e.tenant, bases[e.t] + e.rank, e.stream, e.version, e.kind, e.body, e.at, now_ms, e.endpoint, e.cause from unnest(new_events) e;

    if cardinality(alias_writes) > 0 then
        delete from aliases x using unnest(alias_writes) w
        where w.remove and x.tenant = (appends[w.append]).tenant and x.endpoint = w.endpoint and x.external_id = w.external_id
          and x.conversation = (appends[w.append]).stream;
        insert into aliases (tenant, endpoint, external_id, conversation)
        select (appends[w.append]).tenant, w.endpoint, w.external_id, (appends[w.append]).stream
        from unnest(alias_writes) w where not w.remove
        on conflict (tenant, endpoint, external_id) do update set conversation = excluded.conversation;
    end if;

    if exists (select from unnest(conversation_writes) c where c.absorbs is not null) then
        -- Where both threads know a message, what the absorbing one says stands.
        with gone as (
            delete from messages m using unnest(conversation_writes) c
            where m.conversation = c.absorbs and m.tenant = c.tenant
            returning m.*, c.id as target
        )
        insert into messages as m
        select tenant, message_id, target, seq, at, recorded_at, outbound, origin, kind, content, context, author, status, status_at,
               problems, edited, revoked
        from gone
        on conflict (message_id, conversation) do update set
            seq = coalesce(m.seq, excluded.seq),
            at = coalesce(m.at, excluded.at),
            recorded_at = coalesce(m.recorded_at, excluded.recorded_at),
            outbound = coalesce(m.outbound, excluded.outbound),
            origin = coalesce(m.origin, excluded.origin),
            kind = coalesce(m.kind, excluded.kind),
            content = coalesce(m.content, excluded.content),
            context = coalesce(m.context, excluded.context),
            author = coalesce(m.author, excluded.author),
            status = greatest(m.status, excluded.status),
            status_at = case when excluded.status > m.status then excluded.status_at else m.status_at end,
            problems = case when excluded.status > m.status then excluded.problems
                            when excluded.status = m.status then coalesce(m.problems, excluded.problems) else m.problems end,
            edited = m.edited or excluded.edited,
            revoked = m.revoked or excluded.revoked;
    end if;

    insert into messages as m (tenant, message_id, conversation, seq, at, recorded_at, outbound, origin, kind, content, context, author,
                               status, status_at, problems, edited, revoked)
    select w.tenant, w.message_id, w.conversation, bases[w.t] + w.before + w.seq, w.at, case when w.seq is not null then now_ms end,
           w.outbound, w.origin, w.kind, w.content, w.context, w.author, w.status, w.status_at, w.problems, w.edited, w.revoked
    from unnest(message_writes) w
    on conflict (message_id, conversation) do update set
        seq = coalesce(excluded.seq, m.seq),
        at = coalesce(excluded.at, m.at),
        recorded_at = coalesce(excluded.recorded_at, m.recorded_at),
        outbound = coalesce(excluded.outbound, m.outbound),
        origin = coalesce(excluded.origin, m.origin),
        kind = case when m.edited and not excluded.edited then coalesce(m.kind, excluded.kind) else coalesce(excluded.kind, m.kind) end,
        content = case when m.edited and not excluded.edited then coalesce(m.content, excluded.content)
                       else coalesce(excluded.content, m.content) end,
        context = coalesce(excluded.context, m.context),
        author = coalesce(excluded.author, m.author),
        status = greatest(excluded.status, m.status),
        status_at = case when excluded.status > m.status then excluded.status_at else m.status_at end,
        problems = case when excluded.status > m.status then excluded.problems
                        when excluded.status = m.status then coalesce(m.problems, excluded.problems) else m.problems end,
        edited = excluded.edited or m.edited,
        revoked = excluded.revoked or m.revoked;

    insert into conversations (tenant, id, endpoint, contact, name, preview, last_at, last_outbound, unanswered, messages, merged_into)
    select tenant, id, endpoint, contact, name, preview, last_at, last_outbound, unanswered, messages, merged_into
    from unnest(conversation_writes)
    on conflict (id) do update set
        endpoint = excluded.endpoint, contact = excluded.contact, name = excluded.name, preview = excluded.preview,
        last_at = excluded.last_at, last_outbound = excluded.last_outbound, unanswered = excluded.unanswered,
        messages = excluded.messages, merged_into = excluded.merged_into;

    if cardinality(new_snapshots) > 0 then
        insert into snapshots (stream, version, body) select stream, version, body from unnest(new_snapshots)
        on conflict (stream) do update set version = excluded.version, body = excluded.body;
    end if;

    if cardinality(webhooks) > 0 then
        insert into raw_webhooks (id, provider, received_at, body, verdict, tenant)
        select id, provider, received_at, body, verdict, tenant from unnest(webhooks)
        on conflict do nothing;
    end if;

    if cardinality(quarantined) > 0 then
        insert into quarantine (id, at, reason, detail, payload, tenant, webhook, stream)
        select id, at, reason, detail, payload, tenant, webhook, stream from unnest(quarantined)
        on conflict do nothing;
    end if;

exception
    when sqlstate 'PY001' then
        bases := null;
end
$$;
